/**
 * Adapters of the experts of a mixture, taken apart into those of single experts, which are added up like those of linear layers, and put
 * together again.
 *
 * @module
 */
import { toFloat32 } from "../../formats/dtype.ts";
import type { LoraAdapter } from "../../formats/peft/peft.ts";
import type { Architecture } from "../../models/architecture.ts";

/** What a module of an adapter is: a linear layer, or one expert's part of a layer of experts. */
export interface ModuleName {
  /** Of the layer. */
  readonly path: string;
  /** Which of how many; absent for linear layers. */
  readonly expert?: { readonly index: number; readonly of: number };
}

/** Factors of a module: b a. */
export interface ModuleFactors<Values = Float64Array> extends ModuleName {
  readonly out: number;
  readonly in: number;
  readonly rank: number;
  /** [rank, in] */
  readonly a: Values;
  /** [out, rank] */
  readonly b: Values;
}

/** Tells modules apart, and names them in messages. */
export function moduleLabel({ path, expert }: ModuleName): string {
  return expert ? `${path} of expert ${expert.index}` : path;
}

/** The modules of an adapter, one for each expert. */
export function* modulesOf(
  { tensors, experts }: LoraAdapter,
): Iterable<ModuleFactors<Float32Array>> {
  for (const [name, tensor] of tensors) {
    if (!name.endsWith(".lora_A.weight")) continue;
    const path = name.slice(0, -".lora_A.weight".length);
    const other = tensors.get(`${path}.lora_B.weight`)!;
    const of = experts?.get(path);
    const [rows, width] = tensor.shape as [number, number];
    const [rank, out] = [rows / (of ?? 1), other.shape[0]! / (of ?? 1)];
    const [a, b] = [toFloat32(tensor.dtype, tensor.data), toFloat32(other.dtype, other.data)];
    for (let index = 0; index < (of ?? 1); index++) {
      const part = (all: Float32Array, each: number) => all.subarray(index * each, (index + 1) * each);
      yield {
        ...{ path, rank, out, in: width },
        ...(of === undefined ? {} : { expert: { index, of } }),
        a: part(a, rank * width),
        b: part(b, out * rank),
      };
    }
  }
}

/** Modules of one layer as an adapter has them: experts one after another, all of the largest rank among them. */
export interface StackedModule<M extends ModuleFactors> {
  readonly path: string;
  readonly rank: number;
  readonly experts: number | undefined;
  readonly shapes: { readonly a: number[]; readonly b: number[] };
  readonly a: Float64Array;
  readonly b: Float64Array;
  readonly first: M;
}

/** Puts the modules of each layer together, in order of appearance. */
export function stackedModules<M extends ModuleFactors>(modules: readonly M[]): StackedModule<M>[] {
  const byPath = new Map<string, M[]>();
  for (const module of modules) byPath.set(module.path, [...byPath.get(module.path) ?? [], module]);
  return [...byPath].map(([path, own]) => {
    const rank = Math.max(...own.map((m) => m.rank));
    const [{ out, in: width }] = own as [M];
    const [a, b] = [new Float64Array(own.length * rank * width), new Float64Array(own.length * out * rank)];
    own.forEach((module, e) => {
      for (let i = 0; i < module.rank * width; i++) a[e * rank * width + i] = module.a[i]!;
      for (let o = 0; o < out; o++) {
        for (let r = 0; r < module.rank; r++) {
          b[(e * out + o) * rank + r] = module.b[o * module.rank + r]!;
        }
      }
    });
    return {
      ...{ path, rank, a, b, first: own[0]!, experts: own[0]!.expert?.of },
      shapes: { a: [own.length * rank, width], b: [own.length * out, rank] },
    };
  });
}

/** What changes a weight of a model: rows of a module's update, from `firstRow` on. */
export interface WeightUpdate<M> {
  readonly module: M;
  readonly firstRow: number;
}

/** The updates of weights by their names. */
export function weightUpdates<M extends ModuleFactors>(
  modules: readonly M[],
  { expertLayers, tensors }: Architecture,
): Map<string, WeightUpdate<M>> {
  return new Map(modules.flatMap((module): [string, WeightUpdate<M>][] => {
    const { path, expert } = module;
    if (!expert) return [[`${path}.weight`, { module, firstRow: 0 }]];
    let firstRow = 0;
    return expertLayers.find(({ name }) => name === path)!.modules(expert.index).map((own) => {
      const found = [`${own}.weight`, { module, firstRow }] as [string, WeightUpdate<M>];
      firstRow += tensors.get(`${own}.weight`)![0]!;
      return found;
    });
  }));
}
