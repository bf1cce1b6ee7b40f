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
import {
  DEPTH_SEARCHES,
  type DepthFindings,
  type DepthPlan,
  type MeasuredSubset,
} from "../../shape/depth/depth_search.ts";
import type { SubsetValues } from "../../shape/depth/evaluation_cache.ts";
import { DEPTH_METRICS } from "../../shape/depth/metrics.ts";
import { shrinkModel } from "../../shape/shrink.ts";
import type { ShrinkOptions, Shrunk } from "../../shape/shrunk.ts";
import { WIDTH_STRUCTURES } from "../../shape/width/flap.ts";
import type { WidthFindings, WidthGoal } from "../../shape/width/measured_width.ts";
import type { Command, FlagReader, Invocation } from "../command.ts";
import { choice, endTokenFlag, maskFlag, SAMPLE_FLAGS } from "../sample_flags.ts";
import { builtinRegistry } from "../setup/registry.ts";
import { ensureAdapter } from "../setup/setup.ts";
import { SearchProgressLine } from "../terminal/search_progress.ts";
import { shownPath } from "../terminal/shown_path.ts";
import { table } from "../terminal/table.ts";

/** Where evaluations are kept, in the folder of runs. */
const CACHE = "evaluations";

/** Cuts layers, heads and channels out of a model. */
export const shrink: Command = {
  name: "shrink",
  usage: "MODEL --data FILE [--layers COUNT] [--width RATIO] [--output FOLDER | --shape FILE]",
  positional: [1, 1],
  details:
    "Searches for the layers that the model can do without. Searches: dp, AmoebaLLM's dynamic programme, which is greedy; exhaustive; beam; " +
    "and the rules cosine (what changes its input least goes first), every-other and evenly-spaced, which measure no subset. " +
    "Metrics: loss, kl (to the whole model), accuracy (of questions: {prompt, choices, answer} a line). What was measured is " +
    "kept, so the same command after Ctrl-C goes on where it was. --width cuts heads and channels of the layers that stay, by FLAP: those whose " +
    "inputs vary least, weighed by the weights that read them; biases stand for what they gave on average. --output writes an ordinary model folder, --shape a small file that a recipe's " +
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
    width: {
      value: "RATIO",
      kind: "number",
      above: 0,
      most: 1,
      help: "Part of the parameters of heads and channels that stays, such as 0.75",
    },
    structure: {
      value: "STRUCTURE",
      help: `${
        WIDTH_STRUCTURES.join(", ")
      }: one threshold for all layers, or the same widths everywhere (default global)`,
    },
    "no-compensation": { help: "No biases in place of the heads and channels that are cut" },
    faithful: { help: "Cuts the width as AmoebaLLM's code does, where it differs from its paper" },
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
    "limbeck shrink ./teacher --data heldout.jsonl --width 0.75 --structure uniform --output ./narrow",
    "limbeck shrink ./teacher --data questions.jsonl --metric accuracy --layers 20 --keep-last 1",
  ],
  async run({ args: [model], flags, out }: Invocation): Promise<number> {
    const options = readOptions(model!, flags);
    const report = flags.text("report");
    if (!flags.on("no-setup")) await ensureAdapter((message) => out.note(message));
    const line = new SearchProgressLine(out);
    let shrunk: Shrunk;
    try {
      shrunk = await shrinkModel({
        ...options,
        onProgress: (progress) => line.show(progress),
        onStage: (message) => {
          line.end();
          out.note(message);
        },
      });
    } finally {
      line.end();
    }
    for (const { message } of shrunk.warnings) out.warn(message);
    const told = toldOf(shrunk, options);
    if (report !== undefined) {
      const subsets = shrunk.findings?.subsets.map(({ kept, values }) => ({ kept, ...values }));
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
  const width = readWidth(flags);
  if (layers === undefined && !width) {
    throw new UsageError(
      "say how many layers stay: --layers COUNT, or how much of their width: --width RATIO",
    );
  }
  for (const flag of layers === undefined ? ["search", "keep-last", "beam"] : []) {
    if (flags.given(flag)) throw new UsageError(`--${flag} is for --layers`);
  }
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
    ...(layers === undefined ? {} : {
      goal: {
        search: choice("search", flags.text("search"), DEPTH_SEARCHES) ?? "dp",
        layers,
        keepLast: flags.number("keep-last") ?? 0,
        beamWidth: flags.number("beam") ?? 4,
      },
    }),
    ...optional("width", width),
    cacheFolder: flags.text("cache") ?? join(DATA_FOLDER, CACHE),
    registry: builtinRegistry(),
    ...optional("output", flags.text("output")),
    ...optional("shape", flags.text("shape")),
  };
}

/** How the width is to be cut, if it is. */
function readWidth(flags: FlagReader): WidthGoal | undefined {
  const ratio = flags.number("width");
  if (ratio === undefined) {
    for (const flag of ["structure", "no-compensation", "faithful"]) {
      if (flags.given(flag)) throw new UsageError(`--${flag} is for --width`);
    }
    return undefined;
  }
  return {
    ratio,
    structure: choice("structure", flags.text("structure"), WIDTH_STRUCTURES) ?? "global",
    compensation: !flags.on("no-compensation"),
    faithful: flags.on("faithful"),
  };
}

/** The result for machines. */
function toldOf({ findings, width, ...shrunk }: Shrunk, { metric, goal, output, shape }: ShrinkOptions) {
  return {
    ...shrunk,
    ...{ metric, ...goal },
    ...(findings ? depthTold(findings) : {}),
    ...(width ? { width: widthTold(width) } : {}),
    ...(output === undefined ? {} : { output }),
    ...(shape === undefined ? {} : { shape }),
  };
}

function depthTold({ full, plan: found, others, evaluated, possible, cosines, byLayers }: DepthFindings) {
  const subset = ({ kept, values }: MeasuredSubset) => ({ kept, ...values });
  const plan = ({ by, rank, ...found }: DepthPlan) => ({ by, rank, ...subset(found) });
  return {
    ...plan(found),
    full: subset(full),
    others: others.map(plan),
    ...{ evaluated, possible, cosines },
    byLayers: byLayers.map(({ layers, kept }) => ({ layers, kept })),
  };
}

function widthTold({ cut, goal, full, values, threshold, calibrationTokens, parameters }: WidthFindings) {
  const { groups, channels } = cut;
  return {
    ...goal,
    ...values,
    full,
    parameters,
    ...(threshold === undefined ? {} : { threshold }),
    ...{ calibrationTokens, groups, channels },
  };
}

/** The result for people. */
function textOf({ model, parameters, data, findings, cache, width }: Shrunk): string[] {
  const reused = cache?.reused ?? 0;
  return [
    ...(findings ? depthText(findings, model.parameters, parameters, width === undefined) : []),
    ...(findings && width ? [""] : []),
    ...(width ? widthText(width) : []),
    `Measured on ${
      data.questions === undefined
        ? `${count(data.tokens)} tokens of ${data.samples} samples`
        : `${data.questions} questions`
    }${reused > 0 ? `; ${reused} subsets had been measured before` : ""}.`,
  ];
}

/** @param isAll Whether the layers that stay are all that is left, so that their parameters are known */
function depthText(
  { full, plan, others, evaluated, possible }: DepthFindings,
  whole: number,
  left: number,
  isAll: boolean,
): string[] {
  const figures = Object.keys(plan.values);
  const cells = (name: string, { kept, values }: MeasuredSubset, size: string, rank: string) => [
    name,
    kept.join(","),
    ...figures.map((figure) => shown(values[figure])),
    size,
    rank,
  ];
  const ranked = (p: DepthPlan) => cells(p.by, p, isAll ? count(left) : "", `${p.rank} of ${evaluated}`);
  return [
    ...table(["", "kept", ...figures, "parameters", "place"], [
      cells("whole", full, count(whole), ""),
      ranked(plan),
      ...others.map(ranked),
    ]),
    "",
    `${
      bold(`Layers ${plan.kept.join(", ")}`)
    } are place ${plan.rank} of the ${evaluated} subsets of ${plan.kept.length} layers that were evaluated; ` +
    (evaluated < possible ? `there are ${possible}.` : "there are no others."),
  ];
}

function widthText({ goal, cut, full, values, parameters }: WidthFindings): string[] {
  const figures = Object.keys(values);
  const cells = (name: string, found: SubsetValues, size: number) => [
    name,
    ...figures.map((figure) => shown(found[figure])),
    count(size),
  ];
  const each = (byLayer: readonly (readonly number[])[]) => byLayer.map(({ length }) => length).join(", ");
  return [
    ...table(["", ...figures, "parameters"], [
      cells("whole", full, parameters.full),
      cells(`width ${goal.ratio}`, values, parameters.kept),
    ]),
    "",
    `${bold(`Groups of heads by layer: ${each(cut.groups)}`)}; channels: ${each(cut.channels)}.`,
  ];
}

function shown(value: number | null | undefined): string {
  return (value ?? null) === null ? "-" : value!.toFixed(4);
}
