/**
 * What a search leaves: a model folder with a card, or a shape file.
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { basename } from "@std/path";
import { writeModelFolder } from "../distill/export/exports.ts";
import { Model } from "../distill/inputs/models.ts";
import { writeShapeFile } from "../formats/shape_file.ts";
import { count } from "../base/units.ts";
import type { DepthPlan, MeasuredSubset } from "./depth/depth_search.ts";
import type { ShrinkOptions, Shrunk } from "./shrunk.ts";

/** Writes what was asked for, each whole or not at all. */
export async function writeShrunk(
  shrunk: Shrunk,
  options: Pick<ShrinkOptions, "output" | "shape" | "metric" | "goal">,
): Promise<void> {
  const { output, shape } = options;
  const { model: { path, identity, layers }, findings: { plan } } = shrunk;
  if (output !== undefined) {
    const small = await Model.open(path, { category: "weights", layers: plan.kept });
    try {
      await writeModelFolder(output, small, { readme: modelCard(output, shrunk, options) });
    } finally {
      small.close();
    }
  }
  if (shape !== undefined) {
    const model = { path, identity, layers };
    await writeShapeFile(shape, { limbeck: "shape", version: 1, model, keptLayers: plan.kept });
  }
}

/** The README of a model that was cut. */
function modelCard(
  output: string,
  { model, parameters, data, findings }: Shrunk,
  { metric, goal }: Pick<ShrinkOptions, "metric" | "goal">,
): string {
  const { full, plan, others, evaluated, possible } = findings;
  const row = (name: string, { kept, values }: MeasuredSubset, rank = "") =>
    `| ${
      [name, kept.join(", "), figure(values.loss), figure(values.kl), figure(values.accuracy), rank].join(
        " | ",
      )
    } |`;
  const ranked = (plan: DepthPlan) => row(plan.by, plan, String(plan.rank));
  return [
    `# ${basename(output)}`,
    "",
    `Layers ${plan.kept.join(", ")} of the ${model.layers} of ${basename(model.path)}, renumbered from 0: ${
      count(parameters)
    } of ${count(model.parameters)} parameters. Nothing was trained.`,
    "",
    `Made with Limbeck: \`limbeck shrink --layers ${goal.layers} --search ${goal.search} --metric ${metric}${
      goal.keepLast > 0 ? ` --keep-last ${goal.keepLast}` : ""
    }\` on ${data.samples} samples, ${data.tokens} tokens. ` +
    `Weights and config of the whole model have the SHA-256 ${model.identity}.`,
    "",
    "| plan | layers kept | loss | KL to the whole model | accuracy | place |",
    "| ---- | ----------- | ---- | --------------------- | -------- | ----- |",
    row("whole model", full),
    ranked(plan),
    ...others.map(ranked),
    "",
    `Places are among the ${evaluated} subsets of ${plan.kept.length} layers that were evaluated, of ${possible} that there are.`,
    "",
  ].join("\n");
}

/** A figure of a table; empty where it was not measured. */
function figure(value: number | null | undefined): string {
  return value === undefined ? "" : value === null ? "not finite" : value.toFixed(4);
}
