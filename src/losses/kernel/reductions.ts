/**
 * Sums and extremes over the lanes of a row.
 *
 * @module
 */
import type { KernelFamily } from "../../gpu/description.ts";

/** `row_sum`, `row_max`, both for two numbers at once, and `row_min_u32` over all lanes of a workgroup, in a fixed order. */
export function reductions(family: KernelFamily, lanes: number): string {
  if (family === "subgroup8") {
    return `fn row_sum(x: f32) -> f32 { return subgroupAdd(x); }
fn row_max(x: f32) -> f32 { return subgroupMax(x); }
fn row_sum2(x: vec2<f32>) -> vec2<f32> { return vec2<f32>(subgroupAdd(x.x), subgroupAdd(x.y)); }
fn row_max2(x: vec2<f32>) -> vec2<f32> { return vec2<f32>(subgroupMax(x.x), subgroupMax(x.y)); }
fn row_min_u32(x: u32) -> u32 { return subgroupMin(x); }`;
  }
  const tree = (name: string, type: string, join: (a: string, b: string) => string) =>
    `var<workgroup> ${name}_lanes: array<${type}, ${lanes}>;
fn ${name}(x: ${type}) -> ${type} {
  ${name}_lanes[lane] = x;
  workgroupBarrier();
  for (var half = ${lanes / 2}u; half > 0u; half /= 2u) {
    if (lane < half) { ${name}_lanes[lane] = ${join(`${name}_lanes[lane]`, `${name}_lanes[lane + half]`)}; }
    workgroupBarrier();
  }
  let result = ${name}_lanes[0];
  workgroupBarrier();
  return result;
}`;
  return [
    tree("row_sum", "f32", (a, b) => `${a} + ${b}`),
    tree("row_max", "f32", (a, b) => `max(${a}, ${b})`),
    tree("row_sum2", "vec2<f32>", (a, b) => `${a} + ${b}`),
    tree("row_max2", "vec2<f32>", (a, b) => `max(${a}, ${b})`),
    tree("row_min_u32", "u32", (a, b) => `min(${a}, ${b})`),
  ].join("\n");
}
