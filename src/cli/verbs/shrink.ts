/**
 * `limbeck shrink`
 *
 * @module
 */
import { UsageError } from "../../base/errors.ts";
import { requireFolderOf, writeTextAtomically } from "../../formats/files.ts";
import type { Registry } from "../../registry/registry.ts";
import { shrinkReportHtml } from "../../runs/report/shrink_report.ts";
import { EVALUATIONS_FOLDER } from "../../runs/store/data_folder.ts";
import { DEPTH_SEARCHES, type DepthGoal } from "../../shape/depth/depth_search.ts";
import { DEPTH_METRICS } from "../../shape/depth/metrics.ts";
import { shrinkGrid, shrinkModel } from "../../shape/shrink.ts";
import type { ShrinkGridOptions, ShrinkOptions } from "../../shape/shrunk.ts";
import { WIDTH_STRUCTURES } from "../../shape/width/flap.ts";
import type { WidthGoal } from "../../shape/width/measured_width.ts";
import type { Command, FlagReader, Invocation } from "../command.ts";
import { PROVIDER_FLAG } from "../provider_flag.ts";
import { HUB_FLAGS, localModel } from "../hub_models.ts";
import { choice, endTokenFlag, maskFlag, SAMPLE_FLAGS } from "../sample_flags.ts";
import { PLUGIN_FLAGS } from "../setup/plugin_sources.ts";
import { registryWith } from "../setup/registry.ts";
import { ensureAdapter } from "../setup/setup.ts";
import type { Output } from "../terminal/output.ts";
import { SearchProgressLine } from "../terminal/search_progress.ts";
import { shownPath } from "../terminal/shown_path.ts";
import { StoppedError } from "../terminal/stoppable_work.ts";
import { gridText, gridTold, textOf, toldOf } from "../terminal/shrunk_text.ts";
import { handleSignals } from "../terminal/watch_run.ts";

/** Cuts layers, heads and channels out of a model. */
export const shrink: Command = {
  name: "shrink",
  usage:
    "MODEL --data FILE [--layers COUNT] [--width RATIO] [--output FOLDER] [--shape FILE] [--report FILE]",
  positional: [1, 1],
  loadsPlugins: true,
  opensGpu: true,
  details:
    "Searches for the layers that the model can do without. Searches: dp, AmoebaLLM's dynamic programme, which is greedy; exhaustive; beam; " +
    "and the rules cosine (what changes its input least goes first), every-other and evenly-spaced, which measure no subset. " +
    "Metrics: loss, kl (to the whole model), accuracy (of questions: {prompt, choices, answer} a line). What was measured is " +
    "kept, so the same command after Ctrl-C goes on where it was. --width cuts heads and channels of the layers that stay, by FLAP: those whose " +
    "inputs vary least, weighed by the weights that read them; biases stand for what they gave on average. --output writes an ordinary model folder, --shape a small file that a recipe's " +
    "student.shape names. Of several numbers of layers and widths, such as --layers 3,4,5 --width 1,0.75, all are measured and none is written; --report " +
    "draws what each loses against its size and its speed.",
  flags: {
    data: { value: "FILE", many: true, help: "JSON Lines file of calibration samples or questions" },
    layers: {
      ...{ value: "COUNT[,COUNT]", kind: "count", least: 1, listed: true },
      help:
        "Layers that stay; of every-other they are known, and with --report alone all numbers are measured",
    },
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
      value: "RATIO[,RATIO]",
      kind: "number",
      listed: true,
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
    report: {
      value: "FILE",
      help: "Where all that was evaluated goes: JSON, or a page with pictures (FILE.html)",
    },
    cache: { value: "FOLDER", help: `Folder of what was measured (default ${EVALUATIONS_FOLDER})` },
    "context-length": {
      value: "TOKENS",
      kind: "count",
      least: 2,
      help: "Longest sample in tokens (default: the model's, up to 1024)",
    },
    ...SAMPLE_FLAGS,
    ...HUB_FLAGS,
    ...PLUGIN_FLAGS,
    ...PROVIDER_FLAG,
    "no-setup": { help: "Do not look for a GPU adapter first, and install nothing" },
  },
  examples: [
    "limbeck shrink ./teacher --data heldout.jsonl --layers 4 --output ./small",
    "limbeck shrink ./teacher --data heldout.jsonl --layers 4 --search exhaustive --metric kl --shape small.json",
    "limbeck shrink ./teacher --data heldout.jsonl --width 0.75 --structure uniform --output ./narrow",
    "limbeck shrink ./teacher --data heldout.jsonl --layers 3,4,5 --width 1,0.75,0.5 --report shapes.html",
    "limbeck shrink ./teacher --data questions.jsonl --metric accuracy --layers 20 --keep-last 1",
  ],
  async run(invocation: Invocation): Promise<number> {
    const { args: [model], flags, out } = invocation;
    // What is wrong with the flags is said before anything is fetched.
    const registry = await registryWith(invocation.plugins);
    readOptions(model!, flags, registry);
    const asked = readOptions(await localModel(model!, invocation), flags, registry);
    const report = flags.text("report");
    if (report !== undefined) await requireFolderOf(report);
    if (!flags.on("no-setup")) await ensureAdapter((message) => out.note(message));
    const found = await untilStopped(
      out,
      (host) => asked.grid ? inGrid(asked.grid, host) : inOne(asked.one, host),
    );
    for (const { message } of found.warnings) out.warn(message);
    if (report !== undefined) {
      const { told, all, page } = found;
      await writeTextAtomically(
        report,
        isPage(report) ? page() : JSON.stringify({ ...told, ...all }, null, 1) + "\n",
      );
    }
    out.value({ ...found.told, ...(report === undefined ? {} : { report }) });
    for (const text of found.text) out.line(text);
    for (const path of [asked.one?.output, asked.one?.shape, report]) {
      if (path !== undefined) out.line(`Wrote ${shownPath(path)}`);
    }
    return 0;
  },
};

/** What a shrink is given to tell how far it is, and to be stopped by. */
type Host = Pick<ShrinkOptions, "onProgress" | "onStage" | "onTokens" | "signal">;

/** What came of it, in the forms in which it is told. */
interface Told {
  readonly warnings: readonly { readonly message: string }[];
  readonly told: Readonly<Record<string, unknown>>;
  /** What a report has beside it. */
  readonly all: Readonly<Record<string, unknown>>;
  readonly text: readonly string[];
  readonly page: () => string;
}

async function inOne(options: ShrinkOptions, host: Host): Promise<Told> {
  const shrunk = await shrinkModel({ ...options, ...host });
  const { shapes = [] } = shrunk;
  return {
    ...{ warnings: shrunk.warnings, told: toldOf(shrunk, options), text: textOf(shrunk) },
    all: { subsets: shrunk.findings?.subsets.map(({ kept, values }) => ({ kept, ...values })) },
    page: () => shrinkReportHtml({ ...shrunk, ...{ shapes, metric: options.metric } }),
  };
}

async function inGrid(options: ShrinkGridOptions, host: Host): Promise<Told> {
  const found = await shrinkGrid({ ...options, ...host });
  return {
    ...{ warnings: found.warnings, told: gridTold(found, options), text: gridText(found) },
    all: { shapes: found.shapes },
    page: () => shrinkReportHtml({ ...found, metric: options.metric }),
  };
}

/** Shrinks under a line that tells how far it is, until Ctrl-C. */
async function untilStopped<T>(out: Output, work: (host: Host) => Promise<T>): Promise<T> {
  const stop = new AbortController();
  const line = new SearchProgressLine(out);
  using _signals = handleSignals({
    first: () =>
      stop.abort(
        new StoppedError("stopped; what was measured is kept", {
          hint: "The same command goes on where it was.",
        }),
      ),
    second: () => Deno.exit(130),
  });
  try {
    return await work({
      signal: stop.signal,
      onProgress: (progress) => line.show(progress),
      onTokens: (tokens, total) => line.tokens(tokens, total),
      onStage: (message) => {
        line.end();
        out.note(message);
      },
    });
  } finally {
    line.end();
  }
}

function isPage(report: string): boolean {
  return /\.html?$/i.test(report);
}

/** One shrink, or several numbers of layers and widths. */
type Asked =
  | { readonly one: ShrinkOptions; readonly grid?: undefined }
  | { readonly one?: undefined; readonly grid: ShrinkGridOptions };

function readOptions(model: string, flags: FlagReader, registry: Registry): Asked {
  const files = flags.list("data");
  const [layers, report] = [flags.numbers("layers"), flags.text("report")];
  const widths = readWidths(flags);
  const chosen = choice("search", flags.text("search"), DEPTH_SEARCHES);
  if (files.length === 0) throw new UsageError("name what subsets are measured on: --data FILE");
  const isKnown = layers.length === 0 && chosen === "every-other";
  const isAll = layers.length === 0 && widths.length === 0 && report !== undefined && !isKnown;
  const isDeep = layers.length > 0 || isKnown || isAll;
  if (!isDeep && widths.length === 0) {
    throw new UsageError(
      "say how many layers stay: --layers COUNT, or how much of their width: --width RATIO; " +
        "with --report FILE all numbers of layers are measured",
    );
  }
  for (const flag of isDeep ? [] : ["search", "keep-last", "beam"]) {
    if (flags.given(flag)) throw new UsageError(`--${flag} is for --layers`);
  }
  const search: Omit<DepthGoal, "layers"> = {
    search: chosen ?? "dp",
    keepLast: flags.number("keep-last") ?? 0,
    beamWidth: flags.number("beam") ?? 4,
  };
  const common = {
    model,
    data: {
      files,
      ...optional("contextLength", flags.number("context-length")),
      ...optional("limit", flags.number("limit")),
      ...optional("mask", maskFlag(flags)),
      ...optional("endToken", endTokenFlag(flags)),
    },
    metric: choice("metric", flags.text("metric"), DEPTH_METRICS) ?? "loss",
    cacheFolder: flags.text("cache") ?? EVALUATIONS_FOLDER,
    registry,
    ...(report !== undefined && isPage(report) ? { pictured: "speeds" as const } : {}),
  };
  if (!isAll && layers.length < 2 && widths.length < 2) {
    return {
      one: {
        ...common,
        ...(isDeep ? { goal: { ...search, ...optional("layers", layers[0]) } } : {}),
        ...optional("width", widths[0]),
        ...optional("output", flags.text("output")),
        ...optional("shape", flags.text("shape")),
      },
    };
  }
  for (const flag of ["output", "shape"]) {
    if (flags.given(flag)) throw new UsageError(`--${flag} is for one number of layers and one width`);
  }
  if (isKnown) throw new UsageError("name the number of layers beside several widths: --layers COUNT");
  return { grid: { ...common, ...{ layers: isAll ? "all" as const : layers, search, widths } } };
}

function optional<K extends string, V>(name: K, value: V | undefined) {
  return (value === undefined ? {} : { [name]: value }) as { [key in K]?: V };
}

/** How the width is to be cut, if it is. */
function readWidths(flags: FlagReader): WidthGoal[] {
  const ratios = flags.numbers("width");
  for (const flag of ratios.length === 0 ? ["structure", "no-compensation", "faithful"] : []) {
    if (flags.given(flag)) throw new UsageError(`--${flag} is for --width`);
  }
  const structure = choice("structure", flags.text("structure"), WIDTH_STRUCTURES) ?? "global";
  return ratios.map((ratio) => ({
    ...{ ratio, structure },
    compensation: !flags.on("no-compensation"),
    faithful: flags.on("faithful"),
  }));
}
