/**
 * Relations between tokens: the hidden state of a position is compared with those of a span of its sample by cosine similarity, and the
 * rows of similarities in student and teacher by 1 - their cosine.
 *
 * After the relation distillation (RDist) of LLaVA-KD (Cai et al., arXiv 2410.16236), which takes the cosine of whole matrices of products
 * among visual tokens. A row and so a number for each position, vectors of length 1 and spans of text are our own.
 *
 * @module
 */
import { z } from "zod";
import {
  CONTRACT_VERSION,
  defineFeatureLoss,
  type FeatureLoss,
  tensor,
} from "../../src/registry/contract.ts";
import { layerMap, layerPairs } from "./layer_map.ts";
import { unitRows } from "./row_vectors.ts";

const output = (layer: number) => `model.layers.${layer}.output`;

const relationDistillation: FeatureLoss = defineFeatureLoss({
  id: "relation-distillation",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description:
    "One minus the cosine of a position's similarities to a span of its sample, in student and teacher",
  source: "after arXiv 2410.16236 (by position)",
  options: z.strictObject({
    layers: layerMap.default("last"),
    span: z.enum(["supervised", "prompt", "all"]).default("all").describe(
      "Positions of the sample that each position is compared with: those whose next token is learnt, the others, or all",
    ),
  }),
  taps(models, { layers }) {
    const pairs = layerPairs(layers, models);
    return { student: pairs.map(([s]) => output(s)), teacher: pairs.map(([, t]) => output(t)) };
  },
  program(inputs) {
    const { models, student, teacher, sample, options: { layers, span } } = inputs;
    const keys = span === "all" ? undefined : inputs[span];
    const terms = layerPairs(layers, models).map(([s, t]) =>
      tensor.relationDistance(unitRows(student(output(s))), unitRows(teacher(output(t))), sample, keys)
    );
    return tensor.scale(terms.reduce(tensor.add), 1 / terms.length);
  },
});

export default relationDistillation;
