/**
 * A recipe's objective: its losses looked up, their options checked, compiled into row kernels for training and measuring.
 *
 * @module
 */
import { InputError } from "../errors.ts";
import { DEFAULT_ADAPTER } from "../gpu/description.ts";
import type { Divergence, RowLoss } from "../registry/contract.ts";
import type { Registry } from "../registry/registry.ts";
import { compileRowLoss, initialScalars, type ResolvedLoss } from "../registry/divergence.ts";
import type { Executable } from "../tensor/executable.ts";
import type { Graph } from "../tensor/graph.ts";
import type { RowLosses } from "./head.ts";
import type { ObjectiveTerm } from "./recipe.ts";

/** The losses of one block. */
export interface LossSet {
  /** One for each value, in order: the key under which it is reported. */
  readonly names: readonly string[];
  /** Factor of each in the objective, as the recipe gives it; 0 for what is only measured. */
  readonly weights: readonly number[];
  readonly terms: readonly ResolvedLoss[];
  /** Whether the target's logits are needed. */
  readonly needsTarget: boolean;
}

/** The losses of a recipe. */
export class Objective {
  readonly training: LossSet;
  /** Cross-entropy and forward KL first, then whatever else the objective has. */
  readonly evaluation: LossSet;
  readonly crossEntropy: LossSet;
  /** Every loss plugin in use, each once. */
  readonly plugins: readonly (Divergence | RowLoss)[];
  readonly #vocabulary: number;

  /** @throws {InputError} on an unknown loss or an option its schema refuses */
  constructor(registry: Registry, recipe: readonly ObjectiveTerm[], vocabulary: number) {
    this.#vocabulary = vocabulary;
    const resolve = (term: ObjectiveTerm, name: string, where: string, monitor = false): ResolvedLoss => {
      const loss = registry.get("loss", term.loss);
      if (loss.kind === "feature-loss") {
        throw new InputError(
          `"${term.loss}" is a loss over hidden states; these cannot be trained with yet`,
          {
            where: `recipe ${where}`,
          },
        );
      }
      const options = registry.options(loss, term.options, `${where}.options`);
      const { weight, temperature } = term;
      return { loss, options, name, weight, temperature, ...(monitor ? { monitor: true } : {}) };
    };
    const names = uniqueNames(recipe);
    const terms = recipe.map((term, i) => resolve(term, names[i]!, `objective.${i}`));
    const measured = (loss: string) =>
      resolve({ loss, weight: 0, temperature: 1, options: {} }, loss, "objective", true);
    const basics = ["cross-entropy", "forward-kl"];
    const others = terms.filter((t) => !(basics.includes(t.name) && t.temperature === 1));
    this.training = lossSet(terms, vocabulary);
    this.evaluation = lossSet([
      ...basics.map(measured),
      ...others.map((t) => ({
        ...t,
        name: basics.includes(t.name) ? `${t.name} at ${t.temperature}` : t.name,
        monitor: true,
      })),
    ], vocabulary);
    this.crossEntropy = lossSet([measured("cross-entropy")], vocabulary);
    this.plugins = [...new Set(terms.map((t) => t.loss))];
  }

  /** What the head needs to trace one of the sets in a block. */
  rowLosses(set: LossSet, graph: Graph): RowLosses {
    const { terms } = set;
    const shape = { vocabulary: this.#vocabulary };
    return {
      valueCount: terms.length,
      weights: terms.map((t) => (t.monitor ? undefined : graph.scalar(`${t.name}.weight`))),
      needsTarget: set.needsTarget,
      compile: (adapter, gradient) => {
        const kernel = compileRowLoss(terms, shape, adapter, { gradient });
        return {
          name: kernel.label,
          wgsl: kernel.wgsl,
          needsTarget: kernel.needsTeacher,
          size: (rows) => kernel.size(rows, (name) => graph.scalar(name)),
          groups: (rows) => kernel.groups(rows),
        };
      },
    };
  }

  /** Writes weights, temperatures and options into the step buffer. */
  setScalars(executable: Executable): void {
    for (const set of [this.training, this.evaluation]) {
      for (const [name, value] of initialScalars(set.terms)) executable.setScalar(name, value);
    }
  }
}

function lossSet(terms: readonly ResolvedLoss[], vocabulary: number): LossSet {
  return {
    terms,
    names: terms.map((t) => t.name),
    weights: terms.map((t) => (t.monitor ? 0 : t.weight)),
    needsTarget: compileRowLoss(terms, { vocabulary }, DEFAULT_ADAPTER).needsTeacher,
  };
}

/** Keys of the losses: their ids; a loss that is used twice has its place behind it. */
function uniqueNames(recipe: readonly ObjectiveTerm[]): string[] {
  return recipe.map(({ loss }, i) =>
    recipe.filter((t) => t.loss === loss).length > 1
      ? `${loss} ${recipe.slice(0, i).filter((t) => t.loss === loss).length + 1}`
      : loss
  );
}
