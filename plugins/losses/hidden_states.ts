/**
 * What losses over the hidden states of pairs of layers share: the layer map and the trained projections into the teacher's width.
 *
 * @module
 */
import { z } from "zod";
import {
  CONTRACT_VERSION,
  defineFeatureLoss,
  type FeatureLoss,
  type ModelShape,
  type ParameterDefinition,
  type Tensor,
  tensor,
} from "../../src/registry/contract.ts";
import { layerMap, layerPairs } from "./layer_map.ts";

const options = z.strictObject({
  layers: layerMap.default("auto"),
  projector: z.enum(["auto", "always"]).default("auto").describe(
    "Whether a trained matrix, one for each pair, takes the student's states to the teacher's width; auto: where the widths differ",
  ),
});

type Models = { student: ModelShape; teacher: ModelShape };

const output = (layer: number) => `model.layers.${layer}.output`;

function projects({ student, teacher }: Models, projector: "auto" | "always"): boolean {
  return projector === "always" || student.hiddenSize !== teacher.hiddenSize;
}

/** The projection of a pair: as wide states begin as they are, others by random directions that keep their size. */
function projection({ student, teacher }: Models, pair: number): ParameterDefinition {
  const [rows, columns] = [teacher.hiddenSize, student.hiddenSize];
  const identity = () =>
    Float32Array.from({ length: rows * columns }, (_, i) => Number(Math.floor(i / columns) === i % columns));
  return {
    name: `${pair}`,
    suffix: `projection.${pair}.weight`,
    shape: [rows, columns],
    initialisation: rows === columns
      ? { kind: "given", values: identity }
      : { kind: "normal", deviation: columns ** -0.5 },
  };
}

/**
 * A loss that is the mean, over pairs of layers, of a distance between the hidden states behind them.
 *
 * @param distance f32 [T, H], f32 [T, H] -> f32 [T, 1]; differentiable in the first
 */
export function hiddenStateLoss(
  id: string,
  description: string,
  source: string,
  distance: (student: Tensor, teacher: Tensor) => Tensor,
): FeatureLoss {
  return defineFeatureLoss({
    id,
    version: "1.0.0",
    contract: CONTRACT_VERSION,
    description,
    source,
    options,
    taps(models, { layers }) {
      const pairs = layerPairs(layers, models);
      return { student: pairs.map(([s]) => output(s)), teacher: pairs.map(([, t]) => output(t)) };
    },
    parameters: (models, { layers, projector }) =>
      projects(models, projector)
        ? layerPairs(layers, models).map((_, pair) => projection(models, pair))
        : [],
    program({ models, student, teacher, parameter, options: { layers, projector } }) {
      const pairs = layerPairs(layers, models);
      const distances = pairs.map(([s, t], pair) => {
        const own = student(output(s));
        const projected = projects(models, projector) ? tensor.linear(own, parameter(`${pair}`)) : own;
        return distance(projected, teacher(output(t)));
      });
      const mean = tensor.scale(distances.reduce(tensor.add), 1 / pairs.length);
      return tensor.reshape(mean, [mean.dim(0)]);
    },
  });
}
