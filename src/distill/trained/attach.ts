/**
 * How what is trained on a model takes part in the model's forward pass.
 *
 * @module
 */
import type { ModelHooks } from "../../models/context.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import type { ModelAdapter } from "./model_adapter.ts";
import type { Trainable } from "./trainables.ts";
import type { TrainedTensors } from "./trained_tensors.ts";

/** What is trained of a model. */
export interface Trained {
  readonly adapter?: ModelAdapter;
  readonly tensors?: TrainedTensors;
}

/**
 * Makes the hooks of a block.
 *
 * @param parameter The tensor of a parameter, trained or fixed
 * @param training false in evaluation: no dropout
 * @param prompt The prompt of each position, f32 [T, H]
 */
export type Attach = (
  graph: Graph,
  parameter: (name: string) => Tensor,
  training: boolean,
  prompt: () => Tensor,
) => ModelHooks;

/** The hooks of what is trained; undefined where the model stays as it is. */
export function attachOf({ adapter, tensors }: Trained): Attach | undefined {
  if (!adapter && !tensors) return undefined;
  return (graph, parameter, training, prompt) => ({
    ...adapter?.attach(graph, parameter, training, prompt),
    ...(tensors ? { onWeight: tensors.attach(parameter) } : {}),
  });
}

/** The parts of a training's parameters. */
export function partsOf({ adapter, tensors }: Trained): Trainable[] {
  return [adapter, tensors].filter((part) => part !== undefined);
}

/** Names of the trained parameters of the head: its weight, or those of its adapter. */
export function headParameters({ adapter, tensors }: Trained): string[] {
  return [...tensors?.headParameters ?? [], ...adapter?.headParameters ?? []];
}
