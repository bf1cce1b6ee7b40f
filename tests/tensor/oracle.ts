/**
 * Reference values: operands in any storage type, and gradients by central differences in f64.
 *
 * @module
 */
import { type FloatDtype, fromFloat32, toFloat32 } from "../../src/formats/dtype.ts";
import { randomArray, type Value } from "./harness.ts";

/** A random operand as the kernel gets it, and the exact numbers it holds. */
export function operand(
  shape: readonly number[],
  seed: number,
  dtype: FloatDtype = "f32",
  kind: Value["kind"] = "input",
): Value & { readonly values: Float32Array } {
  const count = shape.reduce((a, b) => a * b, 1);
  const data = fromFloat32(dtype, randomArray(count, seed) as Float32Array<ArrayBuffer>);
  return { shape, dtype, kind, data, values: toFloat32(dtype, data) };
}

/** A vector of integers as an input. */
export function indices(values: readonly number[]): Value {
  return { shape: [values.length], dtype: "i32", data: Int32Array.from(values) };
}

/**
 * d/dx of sum_i weights_i f(x)_i by central differences. `f` computes in f64, so a step of 1e-5 leaves errors near 1e-9.
 */
export function numericGradient(
  f: (x: Float64Array) => ArrayLike<number>,
  x: ArrayLike<number>,
  weights: ArrayLike<number>,
): Float64Array {
  const at = Float64Array.from(x);
  const step = 1e-5;
  return Float64Array.from(x, (value, i) => {
    at[i] = value + step;
    const above = f(at);
    at[i] = value - step;
    const below = f(at);
    at[i] = value;
    let sum = 0;
    for (let k = 0; k < above.length; k++) sum += weights[k]! * (above[k]! - below[k]!);
    return sum / (2 * step);
  });
}
