/**
 * What a row kernel looks up at the row's label.
 *
 * @module
 */
import { leaves } from "../../tensor/expr/mod.ts";
import { ENTRY } from "../row_leaves.ts";
import type { CachedTarget } from "./cached_target.ts";
import { type Side, SIDES } from "./layout.ts";
import { LEAVES, type RowScope } from "./scope.ts";

/** Leaves that are looked up. */
function labelLeaves({ statistics }: RowScope): Set<string> {
  return new Set(leaves(statistics.filter((s) => s.kind === "label").map((s) => s.body), "variable"));
}

/** The label's logit of a side, where one is looked up. */
export function labelLogit(scope: RowScope, side: Side): string[] {
  if (!scope.reads(labelLeaves(scope), side)) return [];
  return [`let label_${side} = ${side === "q" ? "student" : "teacher"}(row_label);`];
}

/** Logits and log-probabilities at the label, before anything is overwritten. */
export function lookUpLabel(scope: RowScope, cached: CachedTarget | undefined): string[] {
  const names = labelLeaves(scope);
  return SIDES.flatMap((side) => [
    // With a cached target it has been looked up before the row was changed.
    ...(cached ? [] : labelLogit(scope, side)),
    ...scope.traced.groups.flatMap((_, g) => {
      const name = LEAVES[side].logProbability(g);
      const code = scope.logProbability(`label_${side}`, side, g, "f32");
      return names.has(name) ? [`let label_${name} = ${code};`] : [];
    }),
  ]);
}

/** The statistics of a stage that live at the label alone. */
export function labelStatistics(scope: RowScope, stage: number): string[] {
  const own = scope.statistics.filter((s) => s.kind === "label" && s.stage === stage);
  return own.flatMap(({ name, body }) => {
    const { uniform, results } = scope.printed([body], (leaf) => ({ code: codeAtLabel(leaf), width: 1 }));
    return [...uniform, `let ${name} = ${results[0]!.code};`];
  });
}

function codeAtLabel(leaf: string): string {
  if (leaf === ENTRY.isLabel) return "true";
  const side = SIDES.find((s) => LEAVES[s].logit === leaf);
  return `label_${side ?? leaf}`;
}
