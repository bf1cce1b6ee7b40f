/**
 * One program for all that a golden of a family says: logits, hidden states and the gradients of a LoRA adapter.
 *
 * @module
 */
import { openFile } from "../../src/formats/files.ts";
import { type LoraAdapter, loraScaling, readPeftAdapter } from "../../src/formats/peft/peft.ts";
import { namedExperts } from "../../src/formats/peft/expert_parameters.ts";
import { SafetensorsFile, type TensorData } from "../../src/formats/safetensors/safetensors.ts";
import { Model, uploadWeights } from "../../src/distill/inputs/models.ts";
import { writeSamples } from "../../src/distill/program/fed/stream.ts";
import { traceModel } from "../../src/distill/program/traced_model.ts";
import type { KernelFamily } from "../../src/gpu/description.ts";
import type { ExpertsHook, LinearHook } from "../../src/models/context.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import { compile, type Executable } from "../../src/tensor/executable.ts";
import type { Tensor } from "../../src/tensor/graph.ts";
import { add, scale } from "../../src/tensor/ops/combine.ts";
import { linear } from "../../src/tensor/ops/matmul.ts";
import { plan, Program } from "../../src/tensor/plan.ts";
import { testGpu } from "../tensor/harness.ts";

/** Arrays of a safetensors file by name. */
export type Arrays = ReadonlyMap<string, Float32Array>;

/**
 * The gradients of a golden by the paths of what is trained, those of experts one after another as they are in training.
 *
 * @param adapter The folder whose config says what they are of
 */
export async function readGradients(path: string, adapter: string): Promise<Arrays> {
  const before = "base_model.model.";
  const file = await SafetensorsFile.open(await openFile(path));
  const tensors = new Map<string, TensorData>();
  for (const name of file.tensors.keys()) {
    if (name.startsWith(before)) tensors.set(name.slice(before.length), await file.read(name));
  }
  file.close();
  const { settings } = await readPeftAdapter(adapter);
  return new Map(
    [...namedExperts(tensors, settings, path).tensors].map((
      [name, { data }],
    ) => [name, data as Float32Array]),
  );
}

/** Reads every f32 array of a safetensors file. */
export async function readArrays(path: string): Promise<Arrays> {
  const file = await SafetensorsFile.open(await openFile(path));
  const arrays = new Map<string, Float32Array>();
  for (const name of file.tensors.keys()) {
    arrays.set(name, (await file.readArray(name)).data as Float32Array);
  }
  file.close();
  return arrays;
}

/** What one run of a model gives. */
export interface ModelRun {
  /** f32 [T, V] */
  readonly logits: Float32Array;
  /** Inner values by their names, f32 [T, width]. */
  readonly taps: Arrays;
}

/** A model over packed sequences, with a LoRA adapter that may be off. */
export class LoraModel {
  readonly #executable: Executable;
  readonly #adapter: LoraAdapter | undefined;
  readonly #taps: readonly string[];
  readonly #free: () => void;

  private constructor(
    executable: Executable,
    adapter: LoraAdapter | undefined,
    taps: readonly string[],
    free: () => void,
  ) {
    [this.#executable, this.#adapter, this.#taps, this.#free] = [executable, adapter, taps, free];
  }

  /**
   * Opens a folder and compiles.
   *
   * @param adapterPath A PEFT folder; without one there are no gradients
   */
  static async open(
    path: string,
    sequences: readonly (readonly number[])[],
    family: KernelFamily,
    adapterPath?: string,
  ): Promise<LoraModel> {
    const gpu = await testGpu(family);
    const model = await Model.open(path, { category: "weights" });
    try {
      const adapter = adapterPath === undefined
        ? undefined
        : await readPeftAdapter(adapterPath, model.architecture.tensors, model.architecture.expertLayers);
      const program = new Program();
      const graph = program.block("model");
      const tokens = sequences.flat();
      const trained = new Map<string, Tensor>();
      const taps = new Map<string, Tensor>();
      const adapted = (name: string, x: Tensor, base: () => Tensor, times: typeof linear) => {
        const factors = ["A", "B"].map((side) => {
          const key = `${name}.lora_${side}.weight`;
          const found = adapter?.tensors.get(key);
          if (!found) return undefined;
          trained.set(key, graph.input(key, found.shape, "f32"));
          return trained.get(key)!;
        });
        const [a, b] = factors;
        if (!adapter || !a || !b) return undefined;
        return add(base(), scale(times(times(x, a), b), loraScaling(adapter.settings, name)));
      };
      const onLinear: LinearHook = (name, x, _weight, base) => adapted(name, x, base, linear) ?? base();
      const onExperts: ExpertsHook = ({ name }, x, base, times) => adapted(name, x, base, times);
      const stream = { length: model.config.contextLength };
      const traced = traceModel(graph, "model", model, tokens.length, stream, {
        attach: () => ({ onLinear, onExperts }),
        onTap: (name, x) => void taps.set(name, x),
      });
      const logits = traced.logits(traced.hidden);
      graph.output("logits", logits);
      for (const [name, x] of taps) graph.output(name, x);
      if (adapter) {
        const seed = graph.input("seed", logits.shape, "f32");
        const found = gradients(graph, [[logits, seed]], [...trained.values()]);
        [...trained.keys()].forEach((key, i) => graph.output(`d ${key}`, found[i]!));
      }
      const planned = plan(program, gpu.description);
      const weights = await uploadWeights(gpu, planned, [model]);
      const executable = await compile(gpu, planned, { weights });
      executable.poison();
      const starts = sequences.map((_, i) => sequences.slice(0, i).reduce((sum, s) => sum + s.length, 0));
      const perToken = (value: (sequence: number, position: number) => number) =>
        Int32Array.from(sequences.flatMap((s, i) => s.map((_, p) => value(i, p))));
      writeSamples(executable, {
        tokens: Int32Array.from(tokens),
        positions: perToken((_, p) => p),
        start: perToken((i) => starts[i]!),
        end: perToken((i, p) => starts[i]! + p + 1),
      });
      return new LoraModel(executable, adapter, [...taps.keys()], () => {
        executable.destroy();
        for (const w of weights.values()) w.destroy();
        gpu.check();
      });
    } finally {
      model.close();
    }
  }

  /** Logits and inner values, of the adapted model or the plain one. */
  async run(adapted: boolean): Promise<ModelRun> {
    this.#writeAdapter(adapted);
    this.#executable.run("model");
    const back = await this.#executable.read(["logits", ...this.#taps], "model");
    const array = (name: string) => back.get(name)!.data as Float32Array;
    return { logits: array("logits"), taps: new Map(this.#taps.map((name) => [name, array(name)])) };
  }

  /** Gradients by the paths of what is trained, given that of the logits [T, V]. */
  async gradients(seed: Float32Array): Promise<Arrays> {
    this.#writeAdapter(true, seed);
    this.#executable.run("model");
    const keys = [...this.#adapter!.tensors.keys()];
    const back = await this.#executable.read(keys.map((key) => `d ${key}`), "model");
    return new Map(keys.map((key) => [key, back.get(`d ${key}`)!.data as Float32Array]));
  }

  #writeAdapter(adapted: boolean, seed?: Float32Array): void {
    if (!this.#adapter) return;
    for (const [key, { data }] of this.#adapter.tensors) {
      this.#executable.write(key, adapted ? data : new Float32Array(data.length));
    }
    const { shape } = this.#executable.plan.storages.get("seed")!;
    this.#executable.write("seed", seed ?? new Float32Array(shape.reduce((a, b) => a * b, 1)));
  }

  free(): void {
    this.#free();
  }
}

/** The mean cross-entropy of predicting each next token of each sequence, and its gradient by the logits [T, V]; in f64. */
export function meanCrossEntropy(
  logits: Float32Array,
  sequences: readonly (readonly number[])[],
): { loss: number; gradient: Float32Array } {
  const tokens = sequences.flat();
  const width = logits.length / tokens.length;
  const terms = tokens.length - sequences.length;
  const gradient = new Float32Array(logits.length);
  let [loss, row] = [0, 0];
  for (const sequence of sequences) {
    for (let p = 0; p < sequence.length; p++, row++) {
      if (p === sequence.length - 1) continue;
      const z = logits.subarray(row * width, (row + 1) * width);
      const top = z.reduce((a, b) => Math.max(a, b), -Infinity);
      let sum = 0;
      for (const v of z) sum += Math.exp(v - top);
      const label = sequence[p + 1]!;
      loss += (Math.log(sum) + top - z[label]!) / terms;
      z.forEach((v, i) =>
        gradient[row * width + i] = (Math.exp(v - top) / sum - Number(i === label)) / terms
      );
    }
  }
  return { loss, gradient };
}
