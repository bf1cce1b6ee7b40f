/**
 * What the inputs of a model's output projections are like over calibration text: measured on the GPU, one program for all layers.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { narrowingOf } from "../../distill/inputs/cut_model.ts";
import { type Model, uploadWeights } from "../../distill/inputs/models.ts";
import { runInSlices } from "../../distill/program/slices.ts";
import { writeSamples } from "../../distill/program/fed/stream.ts";
import { traceModel } from "../../distill/program/traced_model.ts";
import type { Gpu, GpuBuffer } from "../../gpu/device.ts";
import { compile, type Executable } from "../../tensor/executable.ts";
import { stepScalar } from "../../tensor/expr/mod.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { pointwise, sumRows } from "../../tensor/ops/pointwise.ts";
import { type Plan, plan, Program } from "../../tensor/plan.ts";
import type { EncodedSample } from "../../text/encode.ts";
import { packBatch, type PackedBatch, packSequential } from "../../text/packing.ts";
import type { DeviceDescription } from "../../gpu/description.ts";
import type { InputStatistics, LayerStatistics } from "./flap.ts";
import { type BlockSums, RunningFluctuation, RunningMoments } from "./running_moments.ts";

/** How inputs are measured. */
export interface MeasureInputsOptions {
  /** Takes AmoebaLLM's running fluctuation for the variance; see {@linkcode RunningFluctuation}. */
  readonly faithful?: boolean;
  readonly onProgress?: (tokens: number, total: number) => void;
}

/** Tokens in one pass, or the longest sample where that is more. */
const TOKENS = 1024;
const BLOCK = "inputs";
const ROLES = ["attention", "mlp"] as const;
const PARTS = ["shift", "sum", "squares"] as const;

/**
 * Mean and variance of the inputs of each layer's projections out of attention and out of the MLP, over every token of every sample,
 * whatever is supervised.
 *
 * @throws {InputError} if there are fewer than two tokens, or something is not a finite number
 */
export async function measureInputs(
  gpu: Gpu,
  model: Model,
  samples: readonly EncodedSample[],
  { faithful = false, onProgress }: MeasureInputsOptions = {},
): Promise<LayerStatistics[]> {
  const total = samples.reduce((sum, { ids }) => sum + ids.length, 0);
  if (total < 2) {
    throw new InputError(`the calibration text has ${total} tokens; a variance needs two at the least`, {
      where: model.path,
      hint: "Give more text: some ten thousand tokens make a steady choice.",
    });
  }
  const tokens = batchTokens(samples, faithful);
  const planned = planInputs(model, tokens, gpu.description);
  const weights = await uploadWeights(gpu, planned, [model]);
  try {
    const executable = await compile(gpu, planned, { weights });
    try {
      return await measure(
        executable,
        model,
        batches(samples, tokens, faithful),
        (done) => onProgress?.(done, total),
        faithful,
      );
    } finally {
      executable.destroy();
    }
  } finally {
    release(weights);
  }
}

/** Plans the measuring; pure, needs no GPU. */
function planInputs(model: Model, tokens: number, device: DeviceDescription): Plan {
  const program = new Program();
  const graph = program.block(BLOCK);
  const { projections } = narrowingOf(model.architecture, model.path);
  const counted = graph.input("counted", [tokens, 1], "f32");
  const named = new Map(
    Array.from({ length: model.config.layers }, (_, layer) =>
      [
        [moduleOf(model, layer, projections.attentionOutput), `${layer} attention`],
        [moduleOf(model, layer, projections.mlpOutput), `${layer} mlp`],
      ] as const).flat(),
  );
  traceModel(graph, "model", model, tokens, { length: tokens }, {
    attach: () => ({
      onLinear(name, x, _weight, base) {
        const as = named.get(name);
        if (as !== undefined) outputSums(graph, as, x, counted);
        return base();
      },
    }),
  });
  return plan(program, device);
}

function moduleOf({ architecture }: Model, layer: number, projection: string): string {
  return `${architecture.family.names.layers}.${layer}.${projection}`;
}

/** Sums over the counted rows of x [T, W] around their mean. */
function outputSums(graph: Graph, name: string, x: Tensor, counted: Tensor): void {
  const kept = sumRows(pointwise([x, counted], (x, c) => x!.mul(c!)));
  const shift = pointwise([kept], (s) => s!.mul(stepScalar(SHARE)));
  const off = pointwise([x, shift, counted], (x, s, c) => x!.sub(s!).mul(c!));
  const made = { shift, sum: sumRows(off), squares: sumRows(pointwise([off], (d) => d!.mul(d!))) };
  for (const part of PARTS) graph.output(`${name} ${part}`, made[part]);
}

/** One over the number of counted tokens. */
const SHARE = "oneOverTokens";

function batchTokens(samples: readonly EncodedSample[], faithful: boolean): number {
  const longest = samples.reduce((most, { ids }) => Math.max(most, ids.length), 0);
  const total = samples.reduce((sum, { ids }) => sum + ids.length, 0);
  return faithful ? longest : Math.max(longest, Math.min(TOKENS, total));
}

function batches(samples: readonly EncodedSample[], tokens: number, alone: boolean): PackedBatch[] {
  return alone ? samples.map((sample) => packBatch([sample], tokens)) : packSequential(samples, tokens);
}

async function measure(
  executable: Executable,
  model: Model,
  batches: readonly PackedBatch[],
  onProgress: (tokens: number) => void,
  faithful: boolean,
): Promise<LayerStatistics[]> {
  const layers = Array.from({ length: model.config.layers }, (_, layer) => layer);
  const names = layers.flatMap((layer) => ROLES.map((role) => `${layer} ${role}`));
  const moments = new Map<string, RunningMoments | RunningFluctuation>();
  let done = 0;
  for (const batch of batches) {
    const count = batch.segment.reduce((sum, segment) => sum + Number(segment >= 0), 0);
    write(executable, batch, count);
    await runInSlices(executable, BLOCK);
    const back = await executable.read(
      names.flatMap((name) => PARTS.map((part) => `${name} ${part}`)),
      BLOCK,
    );
    for (const name of names) {
      const [shift, sum, squares] = PARTS.map((part) => back.get(`${name} ${part}`)!.data as Float32Array);
      const block: BlockSums = { count, shift: shift!, sum: sum!, squares: squares! };
      if (!squares!.every(Number.isFinite)) throw notFinite(name, model.path);
      let running = moments.get(name);
      if (!running) {
        running = new (faithful ? RunningFluctuation : RunningMoments)(shift!.length);
        moments.set(name, running);
      }
      running.add(block);
    }
    onProgress(done += count);
  }
  const of = (layer: number, role: string): InputStatistics => {
    const { count, mean, variance } = moments.get(`${layer} ${role}`)!;
    return { count, mean, variance };
  };
  return layers.map((layer) => ({ attention: of(layer, "attention"), mlp: of(layer, "mlp") }));
}

function write(executable: Executable, batch: PackedBatch, count: number): void {
  writeSamples(executable, {
    ...{ tokens: batch.tokens, positions: batch.position },
    ...{ start: batch.kvStart, end: batch.kvEnd },
  });
  executable.write("counted", Float32Array.from(batch.segment, (segment) => Number(segment >= 0)));
  executable.setScalar(SHARE, 1 / count);
}

function notFinite(name: string, where: string): InputError {
  const [layer, role] = name.split(" ");
  const what = role === "mlp" ? "MLP output" : "attention output";
  return new InputError(`the inputs of layer ${layer}'s ${what} are not finite numbers`, {
    where,
    hint: "The weights are damaged, or the numbers of this model are too large for f32: check the model.",
  });
}

function release(weights: ReadonlyMap<string, GpuBuffer>): void {
  for (const buffer of weights.values()) buffer.destroy();
}
