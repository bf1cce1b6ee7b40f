/**
 * Small tensors that merges are tried on, and a host that gives them to one, whole or in pieces.
 *
 * @module
 */
import { elementCount } from "../../tensor/graph.ts";
import type { LinearAlgebra } from "../adapter_contract.ts";
import type { Merge, MergeInput, MergeUnit } from "../merge_contract.ts";
import { CheckFailure } from "./checklist.ts";
import { randomNumbers } from "./rows.ts";

/** One tensor of a base and of several parents. */
export interface MergeSubject {
  readonly name: string;
  readonly shape: readonly number[];
  readonly base?: Float32Array;
  readonly parents: readonly Float32Array[];
}

/** A merge with its options read. */
export interface OptionedMerge {
  readonly merge: Merge;
  readonly options: Record<string, unknown>;
  /** Of each parent; the last stand for those that come after. */
  readonly parents: readonly Record<string, unknown>[];
  readonly linalg: LinearAlgebra;
}

/** Vectors, matrices of either shape, a row, a column, and single entries. */
export const SHAPES: readonly (readonly number[])[] = [[1], [37], [1, 1], [13, 9], [9, 14], [1, 11], [5, 1]];

/** Numbers about 0, most of them small and some far off, as differences of fine-tuned models are. */
export function drawn(shape: readonly number[], seed: number, scale: number): Float32Array {
  const next = randomNumbers(seed);
  return Float32Array.from({ length: elementCount(shape) }, () => {
    const x = next() + next() + next() - 1.5;
    return scale * (next() < 0.1 ? 4 * x : x);
  });
}

/** A base and parents that differ from it by a tenth of its size. */
export function subject(
  shape: readonly number[],
  { parents, base }: { parents: number; base: boolean },
  seed = 1,
  scale = 1,
): MergeSubject {
  const zero = drawn(shape, 1000 * seed, scale);
  const near = (i: number) => {
    const change = drawn(shape, 1000 * seed + 1 + i, scale / 10);
    return zero.map((w, k) => w + change[k]!);
  };
  return {
    name: `layer.${seed}.[${shape.join(", ")}]`,
    shape,
    ...(base ? { base: zero } : {}),
    parents: Array.from({ length: parents }, (_, i) => near(i)),
  };
}

/** What a merge sees at once with these options. */
export function unitOf({ merge, options }: Pick<OptionedMerge, "merge" | "options">): MergeUnit {
  return typeof merge.unit === "function" ? merge.unit(options) : merge.unit;
}

/**
 * Merges tensors after one another, as a host does: in pieces of `piece` entries where one is given.
 *
 * @throws {CheckFailure} where what comes back is not as many finite numbers as a tensor has
 */
export async function mergeAll(
  { merge, options, parents, linalg }: OptionedMerge,
  subjects: readonly MergeSubject[],
  piece?: number,
): Promise<Float32Array[]> {
  const optionsOf = (i: number) => parents[Math.min(i, parents.length - 1)] ?? {};
  const inputsOf = (tensor: MergeSubject) => {
    const size = elementCount(tensor.shape);
    const step = piece ?? size;
    return Array.from({ length: Math.ceil(size / step) }, (_, k): MergeInput => {
      const cut = (values: Float32Array) => values.slice(k * step, (k + 1) * step);
      return {
        name: tensor.name,
        shape: tensor.shape,
        ...(tensor.base ? { base: cut(tensor.base) } : {}),
        parents: tensor.parents.map((values, i) => ({ values: cut(values), options: optionsOf(i) })),
        options,
        random(parent) {
          if (!Number.isInteger(parent) || parent < 0 || parent >= tensor.parents.length) {
            throw new CheckFailure(`it asks for random(${parent}) of ${tensor.parents.length} parents`, {
              hint: "Parents are counted from 0.",
            });
          }
          const next = randomNumbers(7 + parent + 100 * tensor.name.length);
          return cut(Float32Array.from({ length: size }, () => Math.fround(next() * (1 - 2 ** -24))));
        },
        linalg,
      };
    });
  };
  const survey = await surveyed(merge, options, subjects, inputsOf);
  const results: Float32Array[] = [];
  let last: Float32Array | undefined;
  for (const tensor of subjects) {
    const merged = new Float32Array(elementCount(tensor.shape));
    let at = 0;
    for (const input of inputsOf(tensor)) {
      const length = input.parents[0]!.values.length;
      const part = await merge.merge({ ...input, ...(survey === undefined ? {} : { survey }) });
      checkPart(part, length, tensor.shape);
      if (part.buffer === last?.buffer) {
        throw new CheckFailure(
          "two calls return the same array, so the second overwrites what the first gave",
          {
            hint: "Return the arrays you were given or new ones, none that is kept from call to call.",
          },
        );
      }
      last = part;
      merged.set(part, at);
      at += length;
    }
    results.push(merged);
  }
  return results;
}

/** What its survey of all tensors gathered; undefined where it makes none. */
async function surveyed(
  { survey }: Merge,
  options: Record<string, unknown>,
  subjects: readonly MergeSubject[],
  inputsOf: (tensor: MergeSubject) => MergeInput[],
): Promise<unknown> {
  const passes = survey?.passes(options) ?? 0;
  if (!Number.isInteger(passes) || passes < 0) {
    throw new CheckFailure(`survey.passes() is ${passes}`, { hint: "It is a whole number, 0 for none." });
  }
  if (passes === 0) return undefined;
  const memory = survey!.begin(subjects[0]!.parents.length);
  for (let pass = 0; pass < passes; pass++) {
    for (const tensor of subjects) {
      for (const input of inputsOf(tensor)) await survey!.see(memory, input, pass);
    }
  }
  return memory;
}

function checkPart(part: unknown, length: number, shape: readonly number[]): void {
  const on = `on a tensor of [${shape.join(", ")}]`;
  if (!(part instanceof Float32Array) || part.length !== length) {
    const got = part instanceof Float32Array ? `${part.length} numbers` : typeof part;
    throw new CheckFailure(`merge() returns ${got} ${on}, where ${length} are wanted`, {
      hint: "Return a Float32Array as long as each parent's values.",
    });
  }
  const bad = part.findIndex((x) => !Number.isFinite(x));
  if (bad >= 0) {
    throw new CheckFailure(
      `the result is ${part[bad]} at entry ${bad} ${on}, where all that goes in is finite`,
      {
        hint: "Look at divisions by a norm or by a sum of weights that can be 0.",
      },
    );
  }
}
