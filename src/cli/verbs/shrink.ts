/**
 * `limbeck shrink`
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
// @ts-types="../../../types/std_colors.d.ts"
import { bold } from "@std/fmt/colors";
import { UsageError } from "../../base/errors.ts";
import { count } from "../../base/units.ts";
import { writeTextAtomically } from "../../formats/files.ts";
import { DATA_FOLDER } from "../../runs/store/data_folder.ts";
import { DEPTH_SEARCHES, type DepthPlan, type MeasuredSubset } from "../../shape/depth/depth_search.ts";
import { DEPTH_METRICS } from "../../shape/depth/metrics.ts";
import { shrinkDepth } from "../../shape/shrink.ts";
import type { ShrinkOptions, Shrunk } from "../../shape/shrunk.ts";
import type { Command, FlagReader, Invocation } from "../command.ts";
import { choice, endTokenFlag, maskFlag, SAMPLE_FLAGS } from "../sample_flags.ts";
import { builtinRegistry } from "../setup/registry.ts";
import { ensureAdapter } from "../setup/setup.ts";
import { SearchProgressLine } from "../terminal/search_progress.ts";
import { shownPath } from "../terminal/shown_path.ts";
import { table } from "../terminal/table.ts";

/** Where evaluations are kept, in the folder of runs. */
const CACHE = "evaluations";

/** Cuts layers out of a model. */
export const shrink: Command = {
  name: "shrink",
  usage: "MODEL --data FILE --layers COUNT [--output FOLDER | --shape FILE]",
  positional: [1, 1],
  details:
    "Searches for the layers that the model can do without. Searches: dp, AmoebaLLM's dynamic programme, which is greedy; exhaustive; beam; " +
    "and the rules cosine (what changes its input least goes first), every-other and evenly-spaced, which measure no subset. " +
    "Metrics: loss, kl (to the whole model), accuracy (of questions: {prompt, choices, answer} a line). What was measured is " +
    "kept, so the same command after Ctrl-C goes on where it was. --output writes an ordinary model folder, --shape a small file that a recipe's " +
    "student.shape names.",
  flags: {
    data: { value: "FILE", many: true, help: "JSON Lines file of calibration samples or questions" },
    layers: { value: "COUNT", kind: "count", least: 1, help: "Layers that stay" },
    metric: { value: "METRIC", help: `${DEPTH_METRICS.join(", ")} (default loss)` },
    search: { value: "SEARCH", help: `${DEPTH_SEARCHES.join(", ")} (default dp)` },
    "keep-last": { value: "COUNT", kind: "count", help: "Layers at the end that always stay (default 0)" },
    beam: {
      value: "COUNT",
      kind: "count",
      least: 1,
      help: "Subsets that a beam search goes on with (default 4)",
    },
    output: { value: "FOLDER", help: "Where the smaller model goes" },
    shape: { value: "FILE", help: "Where its shape goes" },
    report: { value: "FILE", help: "Where all that was evaluated goes, as JSON" },
    cache: { value: "FOLDER", help: `Folder of what was measured (default ${join(DATA_FOLDER, CACHE)})` },
    "context-length": {
      value: "TOKENS",
      kind: "count",
      least: 2,
      help: "Longest sample in tokens (default: the model's, up to 1024)",
    },
    ...SAMPLE_FLAGS,
    "no-setup": { help: "Do not look for a GPU adapter first, and install nothing" },
  },
  examples: [
    "limbeck shrink ./teacher --data heldout.jsonl --layers 4 --output ./small",
    "limbeck shrink ./teacher --data heldout.jsonl --layers 4 --search exhaustive --metric kl --shape small.json",
    "limbeck shrink ./teacher --data questions.jsonl --metric accuracy --layers 20 --keep-last 1",
  ],
  async run({ args: [model], flags, out }: Invocation): Promise<number> {
    const options = readOptions(model!, flags);
    const report = flags.text("report");
    if (!flags.on("no-setup")) await ensureAdapter((message) => out.note(message));
    const line = new SearchProgressLine(out);
    let shrunk: Shrunk;
    try {
      shrunk = await shrinkDepth({ ...options, onProgress: (progress) => line.show(progress) });
    } finally {
      line.end();
    }
    for (const { message } of shrunk.warnings) out.warn(message);
    const told = toldOf(shrunk, options);
    if (report !== undefined) {
      const subsets = shrunk.findings.subsets.map(({ kept, values }) => ({ kept, ...values }));
      await writeTextAtomically(report, JSON.stringify({ ...told, subsets }, null, 1) + "\n");
    }
    out.value({ ...told, ...(report === undefined ? {} : { report }) });
    for (const text of textOf(shrunk)) out.line(text);
    for (const path of [options.output, options.shape, report]) {
      if (path !== undefined) out.line(`Wrote ${shownPath(path)}`);
    }
    return 0;
  },
};

function readOptions(model: string, flags: FlagReader): ShrinkOptions {
  const files = flags.list("data");
  const layers = flags.number("layers");
  if (files.length === 0) throw new UsageError("name what subsets are measured on: --data FILE");
  if (layers === undefined) throw new UsageError("say how many layers stay: --layers COUNT");
  const optional = <K extends string, V>(name: K, value: V | undefined) =>
    (value === undefined ? {} : { [name]: value }) as { [key in K]?: V };
  return {
    model,
    data: {
      files,
      ...optional("contextLength", flags.number("context-length")),
      ...optional("limit", flags.number("limit")),
      ...optional("mask", maskFlag(flags)),
      ...optional("endToken", endTokenFlag(flags)),
    },
    metric: choice("metric", flags.text("metric"), DEPTH_METRICS) ?? "loss",
    goal: {
      search: choice("search", flags.text("search"), DEPTH_SEARCHES) ?? "dp",
      layers,
      keepLast: flags.number("keep-last") ?? 0,
      beamWidth: flags.number("beam") ?? 4,
    },
    cacheFolder: flags.text("cache") ?? join(DATA_FOLDER, CACHE),
    registry: builtinRegistry(),
    ...optional("output", flags.text("output")),
    ...optional("shape", flags.text("shape")),
  };
}

/** The result for machines. */
function toldOf({ findings, ...shrunk }: Shrunk, { metric, goal, output, shape }: ShrinkOptions) {
  const subset = ({ kept, values }: MeasuredSubset) => ({ kept, ...values });
  const plan = ({ by, rank, ...found }: DepthPlan) => ({ by, rank, ...subset(found) });
  const { full, plan: found, others, evaluated, possible, cosines, byLayers } = findings;
  return {
    ...shrunk,
    ...{ metric, ...goal },
    ...plan(found),
    full: subset(full),
    others: others.map(plan),
    ...{ evaluated, possible, cosines },
    byLayers: byLayers.map(({ layers, kept }) => ({ layers, kept })),
    ...(output === undefined ? {} : { output }),
    ...(shape === undefined ? {} : { shape }),
  };
}

/** The result for people. */
function textOf({ model, parameters, data, findings, cache }: Shrunk): string[] {
  const { full, plan, others, evaluated, possible } = findings;
  const figures = Object.keys(plan.values);
  const cells = (name: string, { kept, values }: MeasuredSubset, size: number, rank: string) => [
    name,
    kept.join(","),
    ...figures.map((figure) => (values[figure] ?? null) === null ? "-" : values[figure]!.toFixed(4)),
    count(size),
    rank,
  ];
  const ranked = (p: DepthPlan) => cells(p.by, p, parameters, `${p.rank} of ${evaluated}`);
  return [
    ...table(["", "kept", ...figures, "parameters", "place"], [
      cells("whole", full, model.parameters, ""),
      ranked(plan),
      ...others.map(ranked),
    ]),
    "",
    `${
      bold(`Layers ${plan.kept.join(", ")}`)
    } are place ${plan.rank} of the ${evaluated} subsets of ${plan.kept.length} layers that were evaluated; ` +
    (evaluated < possible ? `there are ${possible}.` : "there are no others."),
    `Measured on ${
      data.questions === undefined
        ? `${count(data.tokens)} tokens of ${data.samples} samples`
        : `${data.questions} questions`
    }${cache.reused > 0 ? `; ${cache.reused} subsets had been measured before` : ""}.`,
  ];
}
