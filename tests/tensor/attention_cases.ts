/**
 * Cases of attention, what is right for them by an oracle in f64, and how they are run.
 *
 * @module
 */
import type { Gpu } from "../../src/gpu/device.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import type { Tensor } from "../../src/tensor/graph.ts";
import { attention, type AttentionAttributes, attentionOp } from "../../src/tensor/ops/attention.ts";
import { assertWithin, randomArray, run, type Value } from "./harness.ts";

export interface Case {
  readonly queries: number;
  readonly keys: number;
  readonly shape: AttentionAttributes;
  readonly start: Int32Array;
  readonly end: Int32Array;
  /** q, k, v and the gradient of the output. */
  readonly data: readonly [Float32Array, Float32Array, Float32Array, Float32Array];
}

export function shape(heads: number, keyValueHeads: number, headDim: number, scale = headDim ** -0.5) {
  return { heads, keyValueHeads, headDim, scale };
}

export function makeCase(
  shape: AttentionAttributes,
  keys: number,
  ranges: readonly (readonly [number, number])[],
  size = 1,
): Case {
  const { heads, keyValueHeads, headDim } = shape;
  const queries = ranges.length;
  const [wide, narrow] = [queries * heads * headDim, keys * keyValueHeads * headDim];
  return {
    queries,
    keys,
    shape,
    start: Int32Array.from(ranges, (r) => r[0]),
    end: Int32Array.from(ranges, (r) => r[1]),
    data: [
      randomArray(wide, 1, size),
      randomArray(narrow, 2, size),
      randomArray(narrow, 3),
      randomArray(wide, 4),
    ],
  };
}

/** Causal ranges of samples packed back to back; `filler` rows attend only themselves. */
export function packed(lengths: readonly number[], filler = 0): [number, number][] {
  const ranges: [number, number][] = [];
  for (const length of lengths) {
    const start = ranges.length;
    for (let i = 0; i < length; i++) ranges.push([start, start + i + 1]);
  }
  for (let i = 0; i < filler; i++) ranges.push([ranges.length, ranges.length + 1]);
  return ranges;
}

/** Ranges in no order, some empty, some reaching out of 0 ... keys. */
export function scattered(queries: number, keys: number): [number, number][] {
  const random = randomArray(2 * queries, 7);
  return Array.from({ length: queries }, (_, i) => {
    const at = Math.floor((random[2 * i]! + 1) / 2 * keys);
    return i % 5 === 3 ? [at, at] : [at - 3, at + Math.floor((random[2 * i + 1]! + 1) * 9) - 2];
  });
}

/** Weights of one query of one head, over all keys, with the logarithm of their denominator; straight from the definition. */
function weights(c: Case, q: ArrayLike<number>, k: ArrayLike<number>, i: number, h: number) {
  const { heads, keyValueHeads, headDim, scale, softCap } = c.shape;
  const g = Math.floor(h / (heads / keyValueHeads));
  const cap = (s: number) => softCap === undefined ? s : softCap * Math.tanh(s / softCap);
  const scores = Array.from({ length: c.keys }, (_, j) => {
    if (j < c.start[i]! || j >= c.end[i]!) return -Infinity;
    let sum = 0;
    for (let d = 0; d < headDim; d++) {
      sum += q[(i * heads + h) * headDim + d]! * k[(j * keyValueHeads + g) * headDim + d]!;
    }
    return cap(sum * scale);
  });
  const highest = Math.max(...scores);
  if (highest === -Infinity) return { g, p: scores.map(() => 0), slopes: [], logsumexp: 0 };
  const e = scores.map((s) => Math.exp(s - highest));
  const total = e.reduce((a, b) => a + b, 0);
  // d score / d (scale * q . k)
  const slopes = scores.map((s) => softCap === undefined ? 1 : 1 - (s / softCap) ** 2);
  return { g, p: e.map((x) => x / total), slopes, logsumexp: highest + Math.log(total) };
}

/** The f64 oracle: output and log-denominators, and the gradients of sum(dout * out) by the chain rule. */
export function oracle(c: Case, [q, k, v, dout]: readonly ArrayLike<number>[] = c.data) {
  const { heads, keyValueHeads, headDim: D, scale } = c.shape;
  const out = new Float64Array(q!.length);
  const logsumexp = new Float64Array(heads * c.queries);
  const [dq, dk, dv] = [q!, k!, v!].map((t) => new Float64Array(t.length)) as [
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  for (let h = 0; h < heads; h++) {
    for (let i = 0; i < c.queries; i++) {
      const w = weights(c, q!, k!, i, h);
      logsumexp[h * c.queries + i] = w.logsumexp;
      const row = (i * heads + h) * D;
      const keyRow = (j: number) => (j * keyValueHeads + w.g) * D;
      const dp = w.p.map((p, j) => {
        let sum = 0;
        if (p === 0) return sum;
        for (let d = 0; d < D; d++) {
          out[row + d]! += p * v![keyRow(j) + d]!;
          dv[keyRow(j) + d]! += p * dout![row + d]!;
          sum += dout![row + d]! * v![keyRow(j) + d]!;
        }
        return sum;
      });
      const mean = w.p.reduce((sum, p, j) => sum + p * dp[j]!, 0);
      w.p.forEach((p, j) => {
        if (p === 0) return;
        const ds = scale * p * (dp[j]! - mean) * w.slopes[j]!;
        for (let d = 0; d < D; d++) {
          dq[row + d]! += ds * k![keyRow(j) + d]!;
          dk[keyRow(j) + d]! += ds * q![row + d]!;
        }
      });
    }
  }
  return { out, logsumexp, dq, dk, dv };
}

/** q, k, v, the ranges' starts and ends, and the gradient of the output, as a program's inputs. */
export function valuesOf(c: Case): Value[] {
  const { heads, keyValueHeads, headDim } = c.shape;
  const [q, k, v, dout] = c.data;
  const [wide, narrow] = [[c.queries, heads * headDim], [c.keys, keyValueHeads * headDim]];
  return [
    { shape: wide, data: q },
    { shape: narrow, data: k },
    { shape: narrow, data: v },
    { shape: [c.queries], dtype: "i32", data: c.start },
    { shape: [c.queries], dtype: "i32", data: c.end },
    { shape: wide, data: dout },
  ];
}

/** Runs forward and backward with the given ops: the real ones, or some with a planted mistake. */
export async function onGpu(
  gpu: Gpu,
  c: Case,
  build = (q: Tensor, k: Tensor, v: Tensor, start: Tensor, end: Tensor, dout: Tensor): Tensor[] => {
    const y = attention(q, k, v, { start, end }, c.shape);
    const made = gradients(q.graph, [[y, dout]], [q, k, v]) as Tensor[];
    return [y, q.graph.nodes.find((n) => n.op.name === attentionOp.name)!.outputs[1]!, ...made];
  },
  scalars: Record<string, number> = {},
  kernels?: Readonly<Record<string, string>>,
) {
  const { outputs } = await run(
    gpu,
    valuesOf(c),
    (_, ...t) => build(t[0]!, t[1]!, t[2]!, t[3]!, t[4]!, t[5]!),
    scalars,
    kernels ? { ...gpu.description, kernels } : gpu.description,
  );
  const [out, logsumexp, dq, dk, dv] = outputs as [
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  return { out, logsumexp, dq, dk, dv };
}

export type Results = Record<"out" | "logsumexp" | "dq" | "dk" | "dv", ArrayLike<number>>;

export function assertMatches(actual: Results, expected: Results, tolerance = 1) {
  assertWithin(actual.out, expected.out, 2e-6 * tolerance, "outputs");
  assertWithin(actual.logsumexp, expected.logsumexp, 4e-6 * tolerance, "logarithms of the denominators");
  assertWithin(actual.dq, expected.dq, 8e-6 * tolerance, "gradients of q");
  assertWithin(actual.dk, expected.dk, 8e-6 * tolerance, "gradients of k");
  assertWithin(actual.dv, expected.dv, 8e-6 * tolerance, "gradients of v");
}
