/**
 * The controllers of an objective's losses, and what they remember.
 *
 * @module
 */
import type { Controller, ControllerState } from "../../registry/contract.ts";
import type { ResolvedLoss } from "../../losses/traced.ts";

/** Options that controllers have set, by name of the loss. */
export type ControlledOptions = Readonly<Record<string, Readonly<Record<string, number>>>>;

/** What controllers remember, by name of the loss. Plain JSON. */
export type ControllerStates = Readonly<Record<string, ControllerState>>;

/** The controller of a loss, where its options ask for one. */
export function controllerOf({ loss, options }: ResolvedLoss): Controller | undefined {
  return loss.controller?.start(options) ? loss.controller : undefined;
}

/** The key under which what a loss's controller measures is found among the means of a step. */
export function measureName(loss: string, id: string): string {
  return `${loss} ${id}`;
}

/** Carries the controllers of a run from step to step. */
export class Controllers {
  readonly #terms: readonly { readonly term: ResolvedLoss; readonly controller: Controller }[];
  readonly #steps: number;
  #states: Map<string, ControllerState>;

  /**
   * @param terms The objective's losses as they are before the first step
   * @param steps Steps of the whole run
   */
  constructor(terms: readonly ResolvedLoss[], steps: number) {
    this.#terms = terms.flatMap((term) => {
      const controller = controllerOf(term);
      return controller ? [{ term, controller }] : [];
    });
    this.#steps = steps;
    this.#states = new Map(
      this.#terms.map(({ term, controller }) => [term.name, controller.start(term.options)!]),
    );
  }

  /** Whether there are any, so that each step has to wait for the numbers of the one before. */
  get active(): boolean {
    return this.#terms.length > 0;
  }

  /** The options of the step that follows. */
  values(): ControlledOptions {
    return Object.fromEntries(
      this.#terms.map(({ term, controller }) =>
        [term.name, controller.values(this.#states.get(term.name)!, term.options)] as const
      ),
    );
  }

  /**
   * Takes in a step that has been done.
   *
   * @param step Its number, from 0
   * @param means Each loss and what controllers measure, over their tokens, by name
   */
  advance(step: number, means: Readonly<Record<string, number>>): void {
    for (const { term, controller } of this.#terms) {
      const { name, options } = term;
      const value = means[name];
      const measured = Object.fromEntries(
        (controller.measures ?? []).map(({ id }) => [id, means[measureName(name, id)]!]),
      );
      // A step without the loss's tokens says nothing of it; one that is not finite ends the run.
      if (value === undefined || ![value, ...Object.values(measured)].every(Number.isFinite)) continue;
      const done = { value, measured, step, steps: this.#steps };
      this.#states.set(name, controller.next(this.#states.get(name)!, done, options));
    }
  }

  /** What they remember. */
  state(): ControllerStates {
    return Object.fromEntries(this.#states);
  }

  /** Continues where {@linkcode state} was taken. */
  restore(states: ControllerStates): void {
    this.#states = new Map(this.#terms.map(({ term: { name } }) => [name, states[name]!]));
  }
}
