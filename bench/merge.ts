/**
 * What merging costs: seconds, bytes a second against copying the same files, and peak memory, of models made on the spot.
 *
 *   deno run -A bench/merge.ts                                     two models of 250 MB and their base
 *   deno run -A bench/merge.ts --megabytes 1000 --dtype bf16       of another size or storage
 *   deno run -A bench/merge.ts --mergekit path/to/mergekit-yaml    mergekit beside it, in the same sitting
 *   deno run -A bench/merge.ts --methods ties,slerp --repeats 5    some methods, more often
 *
 * Each merge is a process of its own, start included, as one calls it. Bytes are those of all models read and of the result. Programs
 * take turns; times are medians, memory is the most that was seen. Processor seconds tell less of what else the machine does than seconds.
 *
 * @module
 */
// @ts-types="../types/std_parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
import { UsageError } from "../src/base/errors.ts";
import type { FloatDtype } from "../src/formats/dtype.ts";
import { table } from "../src/cli/terminal/table.ts";
import { measure, type Measured } from "./measured_process.ts";
import { writeRandomModel } from "./random_model.ts";

const MODELS = ["base", "a", "b"];

/** The methods that are measured, in mergekit's words, with the parameters of each model. */
const METHODS: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  linear: { weight: 0.5 },
  task_arithmetic: { weight: 0.5 },
  slerp: {},
  ties: { weight: 0.5, density: 0.5 },
  dare_linear: { weight: 0.5, density: 0.5 },
  dare_ties: { weight: 0.5, density: 0.5 },
};

/** Seconds to copy two models' files to a place that is flushed to the disk. */
async function copy(folder: string): Promise<number> {
  const begun = performance.now();
  for (const name of ["a", "b"]) {
    await Deno.copyFile(`${folder}/${name}/model.safetensors`, `${folder}/copy`);
    using file = await Deno.open(`${folder}/copy`, { write: true });
    await file.sync();
  }
  const seconds = (performance.now() - begun) / 1000;
  await Deno.remove(`${folder}/copy`);
  return seconds;
}

function recipeOf(method: string, dtype: FloatDtype): Record<string, unknown> {
  const models = method === "slerp" ? ["base", "a"] : ["a", "b"];
  return {
    merge_method: method,
    ...(method === "linear" ? {} : { base_model: "base" }),
    models: models.map((model) => ({ model, parameters: METHODS[method] })),
    ...(method === "slerp" ? { parameters: { t: 0.5 } } : {}),
    dtype: dtype === "f32" ? "float32" : "bfloat16",
  };
}

interface BenchOptions {
  readonly megabytes: number;
  readonly dtype: FloatDtype;
  readonly methods: readonly string[];
  readonly repeats: number;
  readonly mergekit: string | undefined;
}

async function bench(folder: string, options: BenchOptions): Promise<void> {
  const { megabytes, dtype, methods, repeats, mergekit } = options;
  for (const [i, name] of MODELS.entries()) {
    await writeRandomModel(`${folder}/${name}`, megabytes * 1e6, dtype, i + 1);
  }
  const bytes = (await Deno.stat(`${folder}/a/model.safetensors`)).size;
  const main = new URL("../src/cli/main.ts", import.meta.url).pathname;
  const limbeck = ["run", "-A", "--no-check", main, "merge"];
  const merge = async (command: string, args: readonly string[]) => {
    const measured = await measure(command, args, folder);
    await Deno.remove(`${folder}/out`, { recursive: true });
    return measured;
  };
  const rate = (models: number, seconds: number) =>
    `${((models + 1) * bytes / seconds / 1e6).toFixed(0)} MB/s`;
  // The first copy brings the files into the cache of the system, as every merge finds them.
  await copy(folder);
  const copies: number[] = [];
  for (let i = 0; i < repeats; i++) copies.push(await copy(folder));
  const copying = median(copies);
  const rows = [["copying two models", copying.toFixed(2), "", rate(3, copying), "", "", ""]];
  for (const method of methods) {
    await Deno.writeTextFile(`${folder}/${method}.json`, JSON.stringify(recipeOf(method, dtype)));
    const [ours, theirs]: Measured[][] = [[], []];
    for (let i = 0; i < repeats; i++) {
      ours!.push(
        await merge(Deno.execPath(), [...limbeck, `${method}.json`, "-o", "out", "--like", "mergekit"]),
      );
      if (mergekit === undefined) continue;
      // JSON is YAML. Its card asks the Hugging Face Hub about each model.
      const args = [`${method}.json`, "out", "--no-copy-tokenizer", "--no-write-model-card"];
      theirs!.push(await merge(mergekit, args));
    }
    const models = method === "linear" || method === "slerp" ? 2 : 3;
    const row = (name: string, all: readonly Measured[], ...ratios: string[]) => {
      const seconds = median(all.map((one) => one.seconds));
      const processor = median(all.map((one) => one.processor));
      const peak = Math.max(...all.map((one) => one.peak));
      const cells = [
        seconds.toFixed(2),
        processor.toFixed(2),
        rate(models, seconds),
        `${(peak / 1e6).toFixed(0)} MB`,
      ];
      rows.push([name, ...cells, ...ratios, ...["", ""].slice(ratios.length)]);
    };
    row(method, ours!);
    if (mergekit === undefined) continue;
    const times = (of: (one: Measured) => number) =>
      `${median(theirs!.map((one, i) => of(one) / of(ours![i]!))).toFixed(1)} x`;
    row("  mergekit", theirs!, times((one) => one.seconds), times((one) => one.peak));
  }
  console.log(`two models of ${(bytes / 1e6).toFixed(0)} MB in ${dtype} and their base`);
  const head = ["merge", "seconds", "processor", "bytes", "peak memory", "time", "memory"];
  for (const line of table(head, rows)) console.log(line);
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return (sorted[Math.floor((sorted.length - 1) / 2)]! + sorted[Math.ceil((sorted.length - 1) / 2)]!) / 2;
}

if (import.meta.main) {
  const {
    megabytes = "250",
    dtype = "f32",
    mergekit,
    repeats = "3",
    methods: listed = Object.keys(METHODS).join(),
  } = parseArgs(Deno.args, {
    string: ["megabytes", "dtype", "mergekit", "methods", "repeats"],
  }) as Record<string, string | undefined>;
  if (dtype !== "f32" && dtype !== "bf16") throw new UsageError("--dtype is f32 or bf16");
  const methods = listed.split(",");
  const unknown = methods.find((method) => !Object.hasOwn(METHODS, method));
  if (unknown !== undefined) throw new UsageError(`--methods knows ${Object.keys(METHODS).join(", ")}`);
  const folder = await Deno.makeTempDir({ prefix: "limbeck-bench-" });
  try {
    await bench(folder, {
      megabytes: Number(megabytes),
      dtype,
      methods,
      repeats: Number(repeats),
      mergekit,
    });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
