/**
 * The sources of level-2 losses, made to fit into one kernel with others.
 *
 * @module
 */
import { literal } from "../../tensor/expr/mod.ts";
import { LOG_FLOOR, type RowLoss, type RowMemory } from "../contract.ts";
import type { ResolvedLoss, TracedObjective } from "../traced.ts";
import { SIDES } from "./layout.ts";

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
  for (const side of SIDES) {
    const name = `$log${side.toUpperCase()}`;
    if (!own.includes(`${name}(`)) continue;
    const divided = `(z - row_m_${side})${temperature ? ` / ${scalar(temperature)}` : ""}`;
    parts.push(
      `fn ${name}(z: f32) -> f32 { return max(${divided} - row_l_${side}${group}, ${literal(LOG_FLOOR)}); }`,
    );
  }
  if (loss.memory) {
    const before = rowMemory(traced, index).perEntry;
    const at = before === 0 ? "memory_row + i" : `memory_row + ${before}u * row_vocabulary + i`;
    parts.push(
      `fn $load(i: u32) -> u32 { return row_memory[${at}]; }`,
      `fn $store(i: u32, x: u32) { row_memory[${at}] = x; }`,
    );
  }
  return [...parts, own].join("\n").replaceAll("$", `loss${index}_`);
}

/** What all row losses need together, or those before one of them: storage each its own, the workgroup's memory in turns. */
export function rowMemory(traced: TracedObjective, before = Infinity): RowMemory {
  let [perEntry, workgroup] = [0, 0];
  for (const { term, index } of traced.rowLosses) {
    const { memory } = term.loss as RowLoss;
    if (!memory || index >= before) continue;
    perEntry += memory.perEntry;
    workgroup = Math.max(workgroup, memory.workgroup);
  }
  return { perEntry, workgroup };
}
