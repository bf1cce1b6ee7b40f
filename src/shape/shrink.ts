/**
 * Making a model smaller: searching for the layers, heads and channels that it can do without, and writing what is left.
 *
 * @module
 */
import { familiesOf } from "../registry/families.ts";
import { InputError } from "../base/errors.ts";
import { modelIdentity } from "../distill/inputs/identity.ts";
import { Model } from "../distill/inputs/models.ts";
import { isTaken, requireFolderOf } from "../formats/files.ts";
import { type Calibration, openCalibration } from "./depth/calibration.ts";
import { narrowingOf } from "../distill/inputs/cut_model.ts";
import type { WidthCut } from "../distill/inputs/width_cut.ts";
import { checkDepthGoal, type DepthGoal } from "./depth/depth_search.ts";
import { measuredSearch } from "./depth/measured_search.ts";
import { checkRatio } from "./width/flap.ts";
import { measuredWidths, type WidthGoal } from "./width/measured_width.ts";
import type { ShrinkGridOptions, ShrinkOptions, Shrunk, ShrunkGrid } from "./shrunk.ts";
import { measureSpeeds } from "./shape_speed.ts";
import { keptLayers, measuredShapes, shapeKey, shapesToTime } from "./shapes.ts";
import { writeShrunk } from "./written_shape.ts";

/**
 * Searches for the layers to keep, then for the heads and channels of those, and writes the smaller model or its shape.
 *
 * @throws {InputError} if the model, the data or the goal do not do, or something is at the place of an output
 * @throws the reason of the signal, once it is aborted; what was measured is kept
 *
 * @example
 * ```ts ignore
 * const { findings } = await shrinkModel({
 *   model: "./teacher",
 *   data: { files: ["heldout.jsonl"] },
 *   metric: "loss",
 *   goal: { search: "dp", layers: 4, keepLast: 0, beamWidth: 4 },
 *   cacheFolder: "evaluations",
 *   registry,
 *   output: "./small",
 * });
 * console.log(findings?.plan.kept);
 * ```
 */
export async function shrinkModel(options: ShrinkOptions): Promise<Shrunk> {
  await checkOutputs(options);
  const { goal, width } = options;
  const { cells: [shrunk], ...pictured } = await shrinkCells(options, () => [goal], [width]);
  const found = { ...shrunk!, ...pictured };
  await writeShrunk(found, options);
  return found;
}

/**
 * Searches for several numbers of layers, and cuts each of what they leave to several widths. Nothing is written.
 *
 * @throws {InputError} if the model, the data or a goal do not do
 * @throws the reason of the signal, once it is aborted; what was measured is kept
 */
export async function shrinkGrid(options: ShrinkGridOptions): Promise<ShrunkGrid> {
  const { layers, search, widths } = options;
  const { cells, shapes, timedOn } = await shrinkCells(
    { ...options, pictured: options.pictured ?? "shapes" },
    (all) => {
      const counts = layers === "all"
        ? Array.from({ length: all }, (_, i) => i + 1).slice(Math.max(1, search.keepLast) - 1, -1)
        : layers;
      if (counts.length === 0) return [undefined];
      return counts.map((count) => (count === all ? undefined : { ...search, layers: count }));
    },
    widths.length === 0 ? [undefined] : widths.map((width) => (width.ratio === 1 ? undefined : width)),
  );
  const warnings = cells.flatMap((cell) => cell.warnings);
  const told = new Map(warnings.map((warning) => [warning.message, warning]));
  const { model, data } = cells[0]!;
  return {
    ...{ model, data, cells, shapes: shapes!, warnings: [...told.values()] },
    ...(timedOn === undefined ? {} : { timedOn }),
  };
}

/** A model, and what it is measured on. */
interface Opened {
  readonly model: Model;
  readonly identity: string;
  readonly data: Calibration;
}

/**
 * Each goal with each width; undefined stands for all layers, and for all of their width.
 *
 * @param goalsFor The goals for a model of so many layers
 */
async function shrinkCells(
  options: Omit<ShrinkOptions, "goal" | "width">,
  goalsFor: (layers: number) => readonly ShrinkOptions["goal"][],
  widths: readonly (WidthGoal | undefined)[],
): Promise<Pick<Shrunk, "shapes" | "timedOn"> & { cells: Shrunk[] }> {
  const model = await Model.open(options.model, { category: "weights" }, familiesOf(options.registry));
  try {
    const { architecture } = model;
    const { layers } = architecture.config;
    const goals = checkedGoals(model, goalsFor(layers), widths);
    const data = await openCalibration(model, {
      ...options.data,
      questions: options.metric === "accuracy",
    });
    const opened: Opened = { model, identity: await modelIdentity(model), data };
    const cells: Shrunk[] = [];
    for (const [i, goal] of goals.entries()) {
      if (goals.length > 1) {
        options.onStage?.(`${goal?.layers ?? layers} layers: ${i + 1} of ${goals.length} numbers of them`);
      }
      cells.push(...await shrinkOnce(opened, goal, widths, options));
    }
    if (cells.length === 0) {
      throw new InputError("all layers in their whole width are the model itself", {
        hint: "Ask for fewer layers, or for less of their width.",
      });
    }
    if (!options.pictured) return { cells };
    const shapes = measuredShapes(cells, architecture, options.metric);
    if (options.pictured === "shapes") return { cells, shapes };
    const cuts = new Map(cells.flatMap((cell) => {
      const { width } = cell;
      const shape = { layers: keptLayers(cell, layers), width: width?.goal.ratio };
      return width ? [[shapeKey(shape), width.cut] as const] : [];
    }));
    const { speeds, adapter } = await measureSpeeds(
      model,
      data,
      shapesToTime(shapes, options.metric),
      (shape) => cuts.get(shapeKey(shape))!,
      options,
    );
    return {
      cells,
      timedOn: adapter,
      shapes: shapes.map((shape) => {
        const tokensPerSecond = speeds.get(shape);
        return { ...shape, ...(tokensPerSecond === undefined ? {} : { tokensPerSecond }) };
      }),
    };
  } finally {
    model.close();
  }
}

/**
 * Goals with their numbers of layers, once it is sure that they and the widths can be reached.
 *
 * @throws {InputError} one of them cannot
 */
export function checkedGoals(
  { architecture, path }: Pick<Model, "architecture" | "path">,
  goals: readonly ShrinkOptions["goal"][],
  widths: readonly (WidthGoal | undefined)[],
): (DepthGoal | undefined)[] {
  const { layers } = architecture.config;
  const whole = goals.map((goal) => goal && wholeGoal(goal, layers));
  for (const goal of whole) if (goal) checkDepthGoal(goal, layers);
  for (const width of widths) {
    if (!width) continue;
    checkRatio(width.ratio);
    narrowingOf(architecture, path);
  }
  return whole;
}

/** A goal with its number of layers. */
function wholeGoal(goal: NonNullable<ShrinkOptions["goal"]>, layers: number): DepthGoal {
  if (goal.layers !== undefined) return { ...goal, layers: goal.layers };
  if (goal.search === "every-other") return { ...goal, layers: Math.ceil(layers / 2) };
  throw new InputError(`a search by ${goal.search} needs the number of layers that stay`);
}

/** What one goal and several widths come to; nothing where neither is asked for. */
async function shrinkOnce(
  opened: Opened,
  goal: DepthGoal | undefined,
  widths: readonly (WidthGoal | undefined)[],
  options: Omit<ShrinkOptions, "goal" | "width">,
): Promise<Shrunk[]> {
  const { model, identity, data } = opened;
  const { architecture } = model;
  const depth = goal ? await measuredSearch(opened, data, { ...options, goal }) : undefined;
  const kept = keptLayers(depth ?? {}, architecture.config.layers);
  const asked = widths.flatMap((width) => (width ? [width] : []));
  const narrowed = asked.length === 0 ? [] : await measuredWidths(opened, kept, data, asked, options);
  const shrunk: Shrunk[] = [];
  for (const goalOfWidth of widths) {
    const width = narrowed.find((found) => found.goal === goalOfWidth);
    if (!depth && !width) continue;
    shrunk.push({
      model: {
        ...{ path: model.path, identity, layers: architecture.config.layers },
        parameters: architecture.parameterCount,
      },
      parameters: await parametersOf(model, kept, width?.cut),
      data: {
        ...{ files: options.data.files, samples: data.samples.length },
        tokens: (depth ?? width)!.tokens,
        ...(data.questions ? { questions: data.questions.length } : {}),
      },
      ...(depth ? { goal: goal!, findings: depth.findings, cache: depth.cache } : {}),
      ...(width ? { width } : {}),
      warnings: [...data.warnings, ...width?.warnings ?? []],
    });
  }
  return shrunk;
}

/** Of the model that is left, as it would be written. */
async function parametersOf(
  { path, architecture }: Model,
  layers: readonly number[],
  width?: WidthCut,
): Promise<number> {
  const left = await Model.open(path, { category: "weights", layers, width }, architecture.further);
  left.close();
  return left.architecture.parameterCount;
}

async function checkOutputs({ output, shape }: ShrinkOptions): Promise<void> {
  for (const path of [output, shape]) {
    if (path !== undefined && await isTaken(path)) {
      throw new InputError("is already there", { where: path, hint: "Choose another name, or remove it." });
    }
  }
  if (shape !== undefined) await requireFolderOf(shape);
}
