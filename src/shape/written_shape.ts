/**
 * What a search leaves: a model folder with a card, or a shape file.
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { basename } from "@std/path";
import { familiesOf } from "../registry/families.ts";
import { writeModelFolder } from "../distill/export/exports.ts";
import { Model } from "../distill/inputs/models.ts";
import { writeShapeFile } from "../formats/shape_file.ts";
import { count } from "../base/units.ts";
import { shapeWidthOf } from "../distill/inputs/width_cut.ts";
import type { DepthFindings, DepthPlan, MeasuredSubset } from "./depth/depth_search.ts";
import type { SubsetValues } from "./depth/evaluation_cache.ts";
import { without } from "./depth/subsets.ts";
import type { WidthFindings, WidthGoal } from "./width/measured_width.ts";
import type { ShrinkOptions, Shrunk } from "./shrunk.ts";

/** Writes what was asked for, each whole or not at all. */
export async function writeShrunk(
  shrunk: Shrunk,
  options: Pick<ShrinkOptions, "output" | "shape" | "metric" | "registry">,
): Promise<void> {
  const { output, shape, registry } = options;
  const { model: { path, identity, layers }, findings, width } = shrunk;
  const kept = findings?.plan.kept ?? without(layers, []);
  if (output !== undefined) {
    const how = { category: "weights", layers: kept, width: width?.cut };
    const small = await Model.open(path, how, familiesOf(registry));
    try {
      await writeModelFolder(output, small, { readme: modelCard(output, shrunk, options) });
    } finally {
      small.close();
    }
  }
  if (shape !== undefined) {
    await writeShapeFile(shape, {
      ...{ limbeck: "shape", version: 1, model: { path, identity, layers }, keptLayers: kept },
      ...(width ? { width: shapeWidthOf(width.cut) } : {}),
    });
  }
}

/** The README of a model that was cut. */
function modelCard(
  output: string,
  { model, parameters, data, goal, findings, width }: Shrunk,
  { metric }: Pick<ShrinkOptions, "metric">,
): string {
  const flags = [
    ...(goal ? [`--layers ${goal.layers} --search ${goal.search}`] : []),
    ...(width ? [widthFlags(width.goal)] : []),
    `--metric ${metric}`,
    ...(goal && goal.keepLast > 0 ? [`--keep-last ${goal.keepLast}`] : []),
  ];
  return [
    `# ${basename(output)}`,
    "",
    [
      ...(findings
        ? [
          `Layers ${findings.plan.kept.join(", ")} of the ${model.layers} of ${
            basename(model.path)
          }, renumbered from 0`,
        ]
        : [`All ${model.layers} layers of ${basename(model.path)}`]),
      ...(width ? [`with some of their heads and channels`] : []),
    ].join(", ") + `: ${count(parameters)} of ${count(model.parameters)} parameters. Nothing was trained.`,
    "",
    `Made with Limbeck: \`limbeck shrink ${
      flags.join(" ")
    }\` on ${data.samples} samples, ${data.tokens} tokens. ` +
    `Weights and config of the whole model have the SHA-256 ${model.identity}.`,
    "",
    ...(findings ? depthTable(findings) : []),
    ...(width ? widthTable(width) : []),
  ].join("\n");
}

function depthTable({ full, plan, others, evaluated, possible }: DepthFindings): string[] {
  const row = (name: string, { kept, values }: MeasuredSubset, rank = "") =>
    `| ${
      [name, kept.join(", "), figure(values.loss), figure(values.kl), figure(values.accuracy), rank].join(
        " | ",
      )
    } |`;
  const ranked = (plan: DepthPlan) => row(plan.by, plan, String(plan.rank));
  return [
    "| plan | layers kept | loss | KL to the whole model | accuracy | place |",
    "| ---- | ----------- | ---- | --------------------- | -------- | ----- |",
    row("whole model", full),
    ranked(plan),
    ...others.map(ranked),
    "",
    `Places are among the ${evaluated} subsets of ${plan.kept.length} layers that were evaluated, of ${possible} that there are.`,
    "",
  ];
}

function widthFlags({ ratio, structure = "global", compensation = true, faithful }: WidthGoal): string {
  const switches = [...(compensation ? [] : ["--no-compensation"]), ...(faithful ? ["--faithful"] : [])];
  return [`--width ${ratio} --structure ${structure}`, ...switches].join(" ");
}

function widthTable({ cut, full, values, parameters }: WidthFindings): string[] {
  const row = (name: string, { loss, kl, accuracy }: SubsetValues, size: number) =>
    `| ${[name, figure(loss), figure(kl), figure(accuracy), count(size)].join(" | ")} |`;
  const each = (byLayer: readonly (readonly number[])[]) => byLayer.map(({ length }) => length).join(", ");
  return [
    "| width | loss | KL to the whole model | accuracy | parameters that compute |",
    "| ----- | ---- | --------------------- | -------- | ----------------------- |",
    row("whole model", full, parameters.full),
    row("cut", values, parameters.kept),
    "",
    `Groups of heads that each layer keeps: ${each(cut.groups)}. Channels of the MLP: ${
      each(cut.channels)
    }. ` +
    (cut.compensation ? "Biases stand for the mean of what was cut." : "Nothing stands for what was cut."),
    "",
  ];
}

/** A figure of a table; empty where it was not measured. */
function figure(value: number | null | undefined): string {
  return value === undefined ? "" : value === null ? "not finite" : value.toFixed(4);
}
