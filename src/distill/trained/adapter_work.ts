/**
 * What an adapter plugin does once an optimiser step: its penalty, its states, and its work after the optimiser.
 *
 * @module
 */
import {
  type AdaptedLayer,
  type Adapter,
  type AdapterSettings,
  type NetworkInputs,
  PluginError,
  type StateDefinition,
} from "../../registry/contract.ts";
import { stepScalar } from "../../tensor/expr/mod.ts";
import type { Tensor } from "../../tensor/graph.ts";
import type { StateSpec, StepWork, UpdateTensors } from "./trainables.ts";

/** The adapter whose work it is. */
export interface AdapterOfWork {
  readonly plugin: Adapter;
  readonly settings: AdapterSettings;
  readonly options: Record<string, unknown>;
  readonly layers: readonly AdaptedLayer[];
  /** Stands before the names of its parameters, states and scalars. */
  readonly prefix: string;
  /** The run's names of a layer's parameter and of a shared one. */
  layerParameter(path: string, name: string): string;
  sharedParameter(name: string): string;
}

/** Stands for the module's path in the names of what all layers share. */
export const SHARED = "shared";

/** The work of one adapter. */
export class AdapterWork implements StepWork {
  readonly states: readonly StateSpec[];
  readonly #adapter: AdapterOfWork;

  constructor(adapter: AdapterOfWork) {
    this.#adapter = adapter;
    const { plugin, layers, settings, options } = adapter;
    const specs = (owner: string, list: readonly StateDefinition[] = []) =>
      list.map(({ name, shape, initial = 0 }) => ({
        name: this.#state(owner, name),
        shape,
        group: "default",
        initial,
      }));
    this.states = [
      ...specs(SHARED, plugin.sharedStates?.(layers, settings, options)),
      ...layers.flatMap((layer) => specs(layer.path, plugin.states?.(layer, settings, options))),
    ];
  }

  penalty(parameter: (name: string) => Tensor): Tensor | undefined {
    const { plugin } = this.#adapter;
    const penalty = plugin.penalty?.(this.#network(parameter));
    if (penalty && (penalty.dtype !== "f32" || String(penalty.shape) !== "1")) {
      throw new PluginError(
        plugin.id,
        `its penalty is ${penalty.dtype} [${penalty.shape.join(", ")}] where f32 [1] is wanted`,
      );
    }
    return penalty;
  }

  afterUpdate({ parameter, gradient, state, clipping }: UpdateTensors): void {
    const { plugin, prefix, layerParameter, sharedParameter } = this.#adapter;
    const network = this.#network(parameter);
    plugin.afterUpdate?.({
      ...network,
      layers: network.layers.map((own) => ({
        ...own,
        gradient: (name) => gradient(layerParameter(own.layer.path, name)),
        state: (name) => state(this.#state(own.layer.path, name)),
      })),
      sharedGradient: (name) => gradient(sharedParameter(name)),
      sharedState: (name) => state(this.#state(SHARED, name)),
      clipping,
      scalar: (name) => stepScalar(scalarName(prefix, name)),
    });
  }

  scalars(step: number): Record<string, number> {
    const { plugin, prefix, layers, settings, options } = this.#adapter;
    const own = plugin.scalars?.(step, layers, settings, options) ?? {};
    return Object.fromEntries(Object.entries(own).map(([name, value]) => [scalarName(prefix, name), value]));
  }

  #network(parameter: (name: string) => Tensor): NetworkInputs {
    const { settings, options, layers, layerParameter, sharedParameter } = this.#adapter;
    return {
      layers: layers.map((layer) => ({
        layer,
        parameter: (name) => parameter(layerParameter(layer.path, name)),
      })),
      shared: (name) => parameter(sharedParameter(name)),
      settings,
      options,
    };
  }

  #state(owner: string, name: string): string {
    return `${this.#adapter.prefix}${owner}.${name}`;
  }
}

function scalarName(prefix: string, name: string): string {
  return `${prefix}adapter.${name}`;
}
