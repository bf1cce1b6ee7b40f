/**
 * What loading a model onto the GPU takes: bytes a second beside plain reading of the same files, and the memory of the process beside what
 * lies on the GPU.
 *
 *   deno run -A bench/load.ts                                a model of 1.5 GB in bf16, made on the spot
 *   deno run -A bench/load.ts --megabytes 500 --dtype f32    of another size or storage
 *   deno run -A bench/load.ts --model PATH                   a model that is there
 *   deno run -A bench/load.ts --quantize nf4                 quantised while it is loaded
 *
 * Each loading is a process of its own. Where a CPU plays the GPU, what lies there is memory of the same process: what has been written so
 * far is taken from the resident memory each time it is looked at, after every piece and after every tensor. Files come from the system's
 * cache after the first time; --cold reads with an empty one, which needs the right to empty it.
 *
 * @module
 */
// @ts-types="../types/std_parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
import { bytes } from "../src/base/units.ts";
import { Model } from "../src/distill/inputs/models.ts";
import { uploadWeights } from "../src/distill/inputs/models.ts";
import { traceModel } from "../src/distill/program/traced_model.ts";
import type { FloatDtype } from "../src/formats/dtype.ts";
import type { QuantizeDtype } from "../src/formats/quantised/quantiser.ts";
import { type Gpu, type GpuBuffer, openGpu } from "../src/gpu/device.ts";
import { plan, Program } from "../src/tensor/plan.ts";
import { byteLength } from "../src/tensor/weight_storage.ts";
import { table } from "../src/cli/terminal/table.ts";
import { writeRandomModel } from "./random_model.ts";

interface Loaded {
  /** Until the last byte has been written, and until the device has it. */
  readonly seconds: number;
  /** Bytes on the GPU. */
  readonly onGpu: number;
  /** The most memory beside what had been written to the GPU, and what it was before. */
  readonly peak: number;
  readonly before: number;
  readonly largest: number;
}

const PIECE = 32 * 2 ** 20;

function resident(): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(Deno.readTextFileSync("/proc/self/status"))![1]) * 1024;
}

/** Loads a model; run in a process of its own. */
async function load(path: string, quantize: QuantizeDtype | undefined): Promise<Loaded> {
  const gpu = await openGpu();
  const model = await Model.open(path, { category: "weights", quantize });
  const program = new Program();
  const graph = program.block("forward");
  graph.output("hidden", traceModel(graph, "model", model, 64, { length: 64 }).hidden);
  const planned = plan(program, gpu.description);
  const before = resident();
  let [written, peak] = [0, before];
  const look = () => peak = Math.max(peak, resident() - written);
  const { upload } = gpu;
  gpu.upload = async function (this: Gpu, buffer: GpuBuffer, at: number, data: Uint8Array<ArrayBuffer>) {
    look();
    await upload.call(this, buffer, at, data);
    written += data.byteLength;
    look();
  };
  const begin = performance.now();
  await uploadWeights(gpu, planned, [model], look);
  await gpu.idle();
  const seconds = (performance.now() - begin) / 1000;
  look();
  const sizes = [...planned.storages.values()].filter(({ kind }) => kind === "weight").map(byteLength);
  return { seconds, onGpu: written, peak, before, largest: Math.max(...sizes) };
}

/** Seconds that plain reading of a model's weights takes, in the same pieces. */
async function readPlainly(path: string): Promise<{ seconds: number; bytes: number }> {
  const files = (await Deno.stat(path)).isFile
    ? [path]
    : [...Deno.readDirSync(path)].filter(({ name }) => name.endsWith(".safetensors")).map(({ name }) =>
      `${path}/${name}`
    );
  const piece = new Uint8Array(PIECE);
  const begin = performance.now();
  let total = 0;
  for (const name of files) {
    using file = await Deno.open(name);
    for (let count; (count = await file.read(piece)) !== null;) total += count;
  }
  return { seconds: (performance.now() - begin) / 1000, bytes: total };
}

async function emptyCaches(): Promise<void> {
  await new Deno.Command("sync").output();
  await Deno.writeTextFile("/proc/sys/vm/drop_caches", "3\n");
}

async function loadElsewhere(path: string, quantize: string | undefined): Promise<Loaded> {
  const args = ["run", "-A", import.meta.filename!, "--child", "--model", path];
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [...args, ...(quantize ? ["--quantize", quantize] : [])],
    stderr: "piped",
  }).output();
  if (code !== 0) throw new Error(new TextDecoder().decode(stderr));
  return JSON.parse(new TextDecoder().decode(stdout));
}

async function main(): Promise<void> {
  const flags = parseArgs(Deno.args, {
    string: ["megabytes", "dtype", "model", "quantize", "repeats"],
    boolean: ["child", "cold"],
  });
  const value = (name: "megabytes" | "dtype" | "model" | "quantize" | "repeats", otherwise = "") =>
    String(flags[name] || otherwise);
  const [model, quantize] = [value("model"), value("quantize") || undefined];
  if (flags.child) {
    console.log(JSON.stringify(await load(model, quantize as QuantizeDtype | undefined)));
    Deno.exit();
  }
  const folder = await Deno.makeTempDir({ prefix: "limbeck-load-" });
  try {
    const path = model || `${folder}/model`;
    if (!model) {
      const size = Number(value("megabytes", "1500")) * 1e6;
      await writeRandomModel(path, size, value("dtype", "bf16") as FloatDtype, 1);
    }
    const rows = [];
    for (let i = 0; i < Number(value("repeats", "3")); i++) {
      if (flags.cold) await emptyCaches();
      const plain = await readPlainly(path);
      if (flags.cold) await emptyCaches();
      const loaded = await loadElsewhere(path, quantize);
      const rate = (size: number, seconds: number) => `${bytes(size / seconds)}/s`;
      rows.push([
        bytes(plain.bytes),
        rate(plain.bytes, plain.seconds),
        rate(plain.bytes, loaded.seconds),
        (plain.seconds / loaded.seconds).toFixed(2),
        bytes(loaded.onGpu),
        bytes(loaded.before),
        bytes(loaded.peak),
        bytes(loaded.largest),
      ]);
    }
    const head = ["file", "read", "loaded", "ratio", "on GPU", "memory before", "at most", "largest tensor"];
    for (const line of table(head, rows)) console.log(line);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

if (import.meta.main) await main();
