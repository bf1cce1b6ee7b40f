/**
 * Parameters of an adapter on the experts of a mixture: those of each expert lie one after another in one tensor.
 *
 * @module
 */
import type { Architecture } from "../../models/architecture.ts";
import type { ExpertLayer } from "../../models/context.ts";
import {
  type AdaptedLayer,
  type Adapter,
  type AdapterValues,
  type ParameterDefinition,
  PluginError,
} from "../../registry/contract.ts";

/**
 * The parameters of a layer, from those of one expert where it is one of experts.
 *
 * @throws {PluginError} for parameters that are no matrices, or begin in a way that says nothing of several experts
 */
export function expertsOf(
  { experts }: AdaptedLayer,
  parameters: readonly ParameterDefinition[],
  { id }: Adapter,
): readonly ParameterDefinition[] {
  if (experts === undefined) return parameters;
  return parameters.map((p) => {
    const { kind } = p.initialisation;
    if (p.shape.length !== 2 || kind === "given" || kind === "fromWeight") {
      throw new PluginError(
        id,
        `the parameter ${p.name} of experts must be a matrix that begins constant or at random`,
      );
    }
    return { ...p, shape: [experts * p.shape[0]!, p.shape[1]!] };
  });
}

/** Host values of the parameters of one expert. */
export function expertValues(values: AdapterValues, expert: number, experts: number): AdapterValues {
  return {
    ...values,
    parameter(name) {
      const all = values.parameter(name);
      const each = all.length / experts;
      return all.subarray(expert * each, (expert + 1) * each);
    },
  };
}

/** A module as a part of a layer of experts. */
export interface ExpertPart {
  readonly layer: ExpertLayer;
  readonly expert: number;
  /** All modules of that expert in the layer, in the order in which their weights lie one above the other. */
  readonly modules: readonly string[];
}

/** What a module is of a layer of experts; undefined for any other. */
export function expertPart({ expertLayers }: Architecture, path: string): ExpertPart | undefined {
  for (const layer of expertLayers) {
    const experts = layer.name.slice(0, layer.name.lastIndexOf("."));
    if (!path.startsWith(`${experts}.`)) continue;
    const expert = Number(path.slice(experts.length + 1).split(".")[0]);
    const modules = layer.modules(expert);
    if (modules.includes(path)) return { layer, expert, modules };
  }
  return undefined;
}
