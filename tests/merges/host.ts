/**
 * A host of merges for tests: gives tensors of a few models to a method, one after another, and to its survey before.
 *
 * @module
 */
import { builtins } from "../../plugins/mod.ts";
import { exactLinearAlgebra } from "../../src/linalg/host.ts";
import type { Merge } from "../../src/registry/contract.ts";
import { elementCount } from "../../src/tensor/graph.ts";

/** A tensor's shape and values. */
export interface TestTensor {
  readonly shape: readonly number[];
  readonly values: ArrayLike<number>;
}

/** Tensors of a model by name. */
export type TestModel = ReadonlyMap<string, TestTensor>;

/** What is merged, and how. */
export interface TestMerge {
  readonly base?: TestModel;
  readonly parents: readonly { readonly model: TestModel; readonly options?: object }[];
  readonly options?: object;
  /** The program whose choices are taken: `mergekit`. */
  readonly like?: string;
  /** 1 where an entry of a tensor of a parent is kept, 0 where it is dropped; undefined where nothing is drawn. */
  mask?(parent: number, tensor: string): ArrayLike<number> | undefined;
}

/** A built-in merge. */
export function mergeCalled(id: string): Merge {
  const found = builtins.find((plugin): plugin is Merge => plugin.kind === "merge" && plugin.id === id);
  if (!found) throw new Error(`there is no merge ${id}`);
  return found;
}

/** The merged tensors by name. */
export async function mergeModels(id: string, given: TestMerge): Promise<Map<string, Float32Array>> {
  const method = mergeCalled(id);
  const like = given.like === undefined ? undefined : method.like?.[given.like];
  const options = method.options.parse({ ...like?.options, ...given.options });
  const parentOptions = given.parents.map((parent) =>
    method.parentOptions.parse({ ...like?.parent, ...parent.options })
  );
  const names = [...given.parents[0]!.model.keys()];
  const input = (name: string) => {
    const copy = (model: TestModel) => Float32Array.from(model.get(name)!.values);
    const { shape } = given.parents[0]!.model.get(name)!;
    return {
      name,
      shape,
      ...(given.base ? { base: copy(given.base) } : {}),
      parents: given.parents.map(({ model }, i) => ({ values: copy(model), options: parentOptions[i]! })),
      options,
      random(parent: number) {
        const mask = given.mask?.(parent, name);
        if (!mask || mask.length !== elementCount(shape)) throw new Error(`no mask ${parent} of ${name}`);
        // Below every probability, and above every one but 1.
        return Float32Array.from(mask, (kept) => (kept ? 0 : 1 - 2 ** -24));
      },
      linalg: exactLinearAlgebra,
    };
  };
  const passes = method.survey?.passes(options) ?? 0;
  const survey = passes > 0 ? method.survey!.begin(given.parents.length) : undefined;
  for (let pass = 0; pass < passes; pass++) {
    for (const name of names) method.survey!.see(survey, input(name), pass);
  }
  const merged = new Map<string, Float32Array>();
  for (const name of names) merged.set(name, await method.merge({ ...input(name), survey }));
  return merged;
}

/** A model of one tensor, `w`. */
export function model(shape: readonly number[], values: ArrayLike<number>): TestModel {
  return new Map([["w", { shape, values }]]);
}

/** Merges models of one tensor. */
export async function mergeOne(id: string, given: TestMerge): Promise<number[]> {
  return [...(await mergeModels(id, given)).get("w")!];
}

/** The largest difference; NaN where one is NaN, or where they are not of one length. */
export function farthest(got: ArrayLike<number>, want: ArrayLike<number>): number {
  if (got.length !== want.length) return NaN;
  let worst = 0;
  for (let i = 0; i < want.length; i++) {
    const difference = Math.abs(got[i]! - want[i]!);
    if (!(difference <= worst)) worst = difference;
  }
  return worst;
}
