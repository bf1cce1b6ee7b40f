/**
 * The terms of an objective that compare groups of tokens of two tokenisations.
 *
 * @module
 */
import { compileRowLoss } from "../../losses/compile.ts";
import type { ResolvedGroupLoss } from "../../losses/compile_group.ts";
import type { ResolvedLoss } from "../../losses/traced.ts";
import type { Registry } from "../../registry/registry.ts";
import type { Graph } from "../../tensor/graph.ts";
import type { RowLosses } from "./row_loss.ts";

/** What the factors of a group loss are made of. */
export interface FactorLosses {
  /** Cross-entropy at the loss's temperature, with weight 1; its step scalars are set like any term's. */
  readonly term: ResolvedLoss;
  /** For the head of one model, of its own vocabulary. */
  rowLosses(graph: Graph): RowLosses;
}

/** The losses whose sums are the log scales of groups. */
export function factorLosses(
  registry: Registry,
  { name, temperature }: ResolvedGroupLoss,
  vocabulary: number,
): FactorLosses {
  const loss = registry.get("loss", "cross-entropy") as ResolvedLoss["loss"];
  const term: ResolvedLoss = {
    ...{ loss, options: registry.options(loss, {}, "objective"), name: `${name} factors` },
    ...{ weight: 1, temperature, temperatureVaries: true },
  };
  return {
    term,
    rowLosses: (graph) => ({
      ...{ valueCount: 1, needsTarget: false, needsCache: false, tokenMasks: false },
      weights: [graph.scalar(`${term.name}.weight`)],
      compile: (device, gradient) => {
        const kernel = compileRowLoss([term], { vocabulary }, device, { gradient });
        const { label, wgsl, memoryWords, size, groups } = kernel;
        return {
          ...{ name: label, wgsl, memoryWords, groups },
          size: (rows, part) => size(rows, (name) => graph.scalar(name), part),
        };
      },
    }),
  };
}
