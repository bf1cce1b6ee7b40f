/**
 * Attention relations: among the queries of a layer, among its keys and among its values, the KL divergence from the teacher's softmax of
 * scaled dot products to the student's.
 *
 * Wang et al., "MiniLMv2: Multi-Head Self-Attention Relation Distillation", arXiv 2012.15828; there over all positions of an
 * encoder, here causal within the sample.
 *
 * @module
 */
import { z } from "zod";
import {
  CONTRACT_VERSION,
  defineFeatureLoss,
  type FeatureLoss,
  type ModelShape,
  PluginError,
  tensor,
} from "../../src/registry/contract.ts";
import { layerMap, layerPairs } from "./layer_map.ts";

const ID = "attention-relation";
const RELATIONS = ["queries", "keys", "values"] as const;

const attentionRelation: FeatureLoss = defineFeatureLoss({
  id: ID,
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "KL between attention relations among queries, among keys and among values (MiniLMv2)",
  source: "arXiv 2012.15828 (causal)",
  options: z.strictObject({
    layers: layerMap.default("last"),
    heads: z.int().min(1).default(1).describe(
      "Relation heads that queries, keys and values are cut into; must divide the widths of both models",
    ),
    relations: z.array(z.enum(RELATIONS)).min(1).default([...RELATIONS]).describe(
      "Which vectors are related with one another",
    ),
  }),
  taps(models, { layers, heads, relations }) {
    checkHeads(models, heads, relations);
    const pairs = layerPairs(layers, models);
    const names = (side: 0 | 1) =>
      pairs.flatMap((pair) => relations.map((r) => `model.layers.${pair[side]}.${r}`));
    return { student: names(0), teacher: names(1) };
  },
  program({ models, student, teacher, sample, options: { layers, heads, relations } }) {
    const terms = layerPairs(layers, models).flatMap(([s, t]) =>
      relations.map((r) =>
        tensor.relationDivergence(
          student(`model.layers.${s}.${r}`),
          teacher(`model.layers.${t}.${r}`),
          sample,
          heads,
        )
      )
    );
    return tensor.scale(terms.reduce(tensor.add), 1 / terms.length);
  },
});

/** @throws {PluginError} if the heads do not divide a width */
function checkHeads(
  models: Readonly<Record<"student" | "teacher", ModelShape>>,
  heads: number,
  relations: readonly string[],
): void {
  for (const [model, shape] of Object.entries(models)) {
    for (const relation of relations) {
      const width = relation === "queries" ? shape.queryWidth : shape.keyValueWidth;
      if (width % heads === 0) continue;
      throw new PluginError(
        ID,
        `${heads} relation heads do not divide the ${width} ${relation} of the ${model}`,
        {
          hint: "Choose heads that divide the widths of queries, keys and values in both models.",
        },
      );
    }
  }
}

export default attentionRelation;
