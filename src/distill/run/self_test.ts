/**
 * A small proof that this device computes what it should: a product and its gradients against f64.
 *
 * @module
 */
import type { Gpu } from "../../gpu/device.ts";
import { gradients } from "../../tensor/differentiate.ts";
import { compile } from "../../tensor/executable.ts";
import { add } from "../../tensor/ops/combine.ts";
import { linear } from "../../tensor/ops/matmul.ts";
import { plan, Program } from "../../tensor/plan.ts";

/** One comparison. */
export interface SelfTestResult {
  readonly name: string;
  readonly passed: boolean;
  /** Largest absolute difference from f64. */
  readonly worst: number;
  readonly tolerance: number;
}

const [T, IN, OUT, R] = [37, 64, 52, 8];
const TOLERANCE = 2e-5;

/** y = x W^T + (x A^T) B^T, and dA, dB, dx for a given dy, on odd sizes. */
export async function selfTest(gpu: Gpu): Promise<SelfTestResult[]> {
  const program = new Program();
  const g = program.block("test");
  const x = g.input("x", [T, IN], "f32");
  const w = g.weight("w", [OUT, IN], "f32");
  const a = g.input("a", [R, IN], "f32");
  const b = g.input("b", [OUT, R], "f32");
  const dy = g.input("dy", [T, OUT], "f32");
  const y = add(linear(x, w), linear(linear(x, a), b));
  const [dx, da, db] = gradients(g, [[y, dy]], [x, a, b]);
  for (const [name, t] of Object.entries({ y, dx: dx!, da: da!, db: db! })) g.output(name, t);

  const sizes = { x: T * IN, w: OUT * IN, a: R * IN, b: OUT * R, dy: T * OUT };
  const values = Object.fromEntries(
    Object.entries(sizes).map(([name, count], seed) => [name, numbers(count, seed + 1)]),
  ) as Record<keyof typeof sizes, Float32Array>;
  const executable = await compile(gpu, plan(program, gpu.description));
  try {
    executable.poison();
    for (const [name, data] of Object.entries(values)) executable.write(name, data);
    executable.run("test");
    const names = ["y", "dx", "da", "db"];
    const back = await executable.read(names, "test");
    const expected = reference(values);
    return names.map((name) => {
      const worst = difference(back.get(name)!.data, expected[name]!);
      return { name, worst, passed: worst <= TOLERANCE, tolerance: TOLERANCE };
    });
  } finally {
    executable.destroy();
  }
}

function reference(v: Record<string, Float32Array>): Record<string, Float64Array> {
  // Each of the four as a plain triple loop: rows x columns, summed over `inner`.
  const product = (
    rows: number,
    columns: number,
    inner: number,
    at: (i: number, j: number, k: number) => number,
  ) =>
    Float64Array.from({ length: rows * columns }, (_, n) => {
      let sum = 0;
      for (let k = 0; k < inner; k++) sum += at(Math.floor(n / columns), n % columns, k);
      return sum;
    });
  const { x, w, a, b, dy } = v as Record<string, Float32Array>;
  const h = product(T, R, IN, (t, r, i) => x![t * IN + i]! * a![r * IN + i]!);
  const dh = product(T, R, OUT, (t, r, o) => dy![t * OUT + o]! * b![o * R + r]!);
  const low = product(T, OUT, R, (t, o, r) => h[t * R + r]! * b![o * R + r]!);
  const back = product(T, IN, R, (t, i, r) => dh[t * R + r]! * a![r * IN + i]!);
  return {
    y: product(T, OUT, IN, (t, o, i) => x![t * IN + i]! * w![o * IN + i]!).map((s, n) => s + low[n]!),
    dx: product(T, IN, OUT, (t, i, o) => dy![t * OUT + o]! * w![o * IN + i]!).map((s, n) => s + back[n]!),
    da: product(R, IN, T, (r, i, t) => dh[t * R + r]! * x![t * IN + i]!),
    db: product(OUT, R, T, (o, r, t) => dy![t * OUT + o]! * h[t * R + r]!),
  };
}

/** Deterministic numbers in [-0.5, 0.5). */
function numbers(count: number, seed: number): Float32Array {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32 - 0.5;
  });
}

function difference(actual: ArrayLike<number>, expected: Float64Array): number {
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    const d = Math.abs(actual[i]! - expected[i]!);
    if (!(d <= worst)) worst = Number.isNaN(d) ? Infinity : d;
  }
  return worst;
}
