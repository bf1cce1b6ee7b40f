/**
 * WGSL that kernels over rows share: reductions over the lanes of a row, and the sources of row losses made to fit together.
 *
 * @module
 */
import type { KernelFamily } from "../gpu/description.ts";
import { literal } from "../tensor/expr/mod.ts";
import type { ResolvedLoss, TracedObjective } from "./divergence.ts";
import { LOG_FLOOR, type RowLoss } from "./loss_contract.ts";

/** `row_sum`, `row_max` and `row_min_u32` over all lanes of a workgroup, in a fixed order. */
export function reductions(family: KernelFamily, lanes: number): string {
  if (family === "subgroup8") {
    return `fn row_sum(x: f32) -> f32 { return subgroupAdd(x); }
fn row_max(x: f32) -> f32 { return subgroupMax(x); }
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
    tree("row_min_u32", "u32", (a, b) => `min(${a}, ${b})`),
  ].join("\n");
}

/** A row loss's source with its own prefix in the place of `$`, and the functions the contract promises it. */
export function rowLossSource(
  term: ResolvedLoss,
  traced: TracedObjective,
  scalar: (name: string) => string,
): string {
  const { index, group } = traced.rowLosses.find((r) => r.term === term)!;
  const loss = term.loss as RowLoss;
  const scalars = Object.fromEntries((loss.scheduled ?? []).map((o) => [o, scalar(`${term.name}.${o}`)]));
  const options = Object.fromEntries(
    Object.entries(term.options).filter(([name]) => !(loss.scheduled ?? []).includes(name)),
  );
  const own = loss.wgsl({ options, scalars });
  const temperature = traced.groups[group]!.scalar;
  const parts: string[] = [];
  if (own.includes("$temperature(")) {
    parts.push(`fn $temperature() -> f32 { return ${temperature ? scalar(temperature) : "1.0"}; }`);
  }
  for (const side of ["q", "p"] as const) {
    const name = `$log${side.toUpperCase()}`;
    if (!own.includes(`${name}(`)) continue;
    const divided = `(z - row_m_${side})${temperature ? ` / ${scalar(temperature)}` : ""}`;
    parts.push(
      `fn ${name}(z: f32) -> f32 { return max(${divided} - row_l_${side}${group}, ${literal(LOG_FLOOR)}); }`,
    );
  }
  return [...parts, own].join("\n").replaceAll("$", `loss${index}_`);
}
