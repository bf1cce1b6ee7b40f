/**
 * One shape of a run that has trained several: cut out of the student and its adapter, without training.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { basename, dirname, join, resolve } from "@std/path";
import { system } from "../../base/system.ts";
import { InputError } from "../../base/errors.ts";
import { isTaken } from "../../formats/files.ts";
import type { UniformLoraLayer } from "../../formats/peft/uniform_lora.ts";
import type { Architecture } from "../../models/architecture.ts";
import type { Registry } from "../../registry/registry.ts";
import { RunStudent } from "../checkpoint/run_student.ts";
import { selectorOf } from "../inputs/cut_model.ts";
import { Model } from "../inputs/models.ts";
import { shapeNamed, type StudentShape } from "../inputs/shape_space.ts";
import type { WidthCut } from "../inputs/width_cut.ts";
import type { Recipe } from "../recipe/recipe.ts";
import { ModelAdapter } from "../trained/model_adapter.ts";
import { type AdapterForm, type AdapterOrigin, writeAdapter } from "./adapter_files.ts";
import { exportGguf, type GgufExportOptions } from "./export_model.ts";
import { writeMerged, writeModelFolder } from "./exports.ts";
import { type PlainLayer, uniform } from "./plain_lora.ts";

/** What {@linkcode exportShape} writes. */
export type ShapeExport = Exclude<AdapterForm, "limbeck"> | "merged" | "gguf";

/** A run and the shape that is wanted of it. */
export interface ShapeOfRun {
  /** The run's folder. */
  readonly folder: string;
  readonly recipe: Recipe;
  readonly registry: Registry;
  /** Such as `depth=4,width=0.75`. */
  readonly shape: string;
}

/** A shape on its own: a smaller model, and the plain LoRA that the run's adapter is for it. */
export interface CutShape {
  /** The caller closes it. */
  readonly model: Model;
  readonly adapter: ModelAdapter;
  /** Of the adapter, by name. */
  readonly values: ReadonlyMap<string, Float32Array>;
}

/**
 * A shape of a run as of its last checkpoint, and the steps the run had done.
 *
 * @throws {InputError} where the run has no such shape or no checkpoint, or its adapter is no plain LoRA for one shape
 */
async function openShape(
  { folder, recipe, registry, shape: name }: ShapeOfRun,
): Promise<CutShape & { readonly step: number }> {
  const student = await RunStudent.open({ folder, recipe, registry });
  try {
    const { shapes } = student.model;
    if (!shapes) {
      throw new InputError("the run has trained one shape only", {
        where: "--shape",
        hint: "Leave --shape out; student.shapes in a recipe trains several at once.",
      });
    }
    const shape = shapeNamed(name, shapes);
    const cut = await cutShape(student.model, student.adapter!, await student.values(), shape, registry);
    return { ...cut, step: student.step };
  } finally {
    student.close();
  }
}

/**
 * Cuts a shape out of a model and the adapter on it.
 *
 * @param values All values of the adapter by name
 * @throws {InputError} where the adapter is no plain LoRA for one shape
 */
export async function cutShape(
  whole: Model,
  adapter: ModelAdapter,
  values: ReadonlyMap<string, Float32Array>,
  shape: StudentShape,
  registry: Registry,
): Promise<CutShape> {
  const { plugin } = adapter;
  if (!plugin.plainLora) {
    throw new InputError(`the adapter "${plugin.id}" is no low-rank update, which a shape could be given`, {
      where: "recipe adapter.type",
      hint: "Train the shapes with shape-gated-lora.",
    });
  }
  const ofShape = new Map([
    ...values,
    ...adapter.shapeValues({ keptLayers: shape.layers, width: shape.width }),
  ]);
  const cut = cutOfLayers(whole.shapes!.widths[shape.width]!.cut, shape.layers);
  const model = await Model.open(whole.path, {
    category: "student weights",
    layers: shape.layers,
    width: cut,
    storage: whole.storage,
  }, whole.architecture.further);
  try {
    const select = selection(whole.architecture, model, cut, shape.layers);
    const adapted = new Map(adapter.layers.map((layer) => [layer.path, layer]));
    const layers = model.architecture.linearLayers.flatMap(({ name }): PlainLayer[] => {
      const { from, rows, columns } = select(`${name}.weight`);
      const layer = adapted.get(from.slice(0, -".weight".length));
      if (!layer) return [];
      const plain = plugin.plainLora!(adapter.values(layer.path, ofShape));
      return [{
        ...{ path: name, rank: plain.rank, scale: plain.scale },
        inFeatures: columns?.length ?? layer.inFeatures,
        outFeatures: rows?.length ?? layer.outFeatures,
        a: columns ? chosenColumns(plain.a, layer.inFeatures, columns) : plain.a,
        b: rows ? chosenRows(plain.b, plain.rank, rows) : plain.b,
      }];
    });
    const { rank, scale, layers: alike } = uniform(layers);
    const lora = new ModelAdapter(
      registry.get("adapter", "lora"),
      {
        ...{ type: "lora", rank, alpha: scale * rank, dropout: 0, rslora: false, loraPlusRatio: 1 },
        ...{ rankPattern: {}, alphaPattern: {}, options: {} },
        targets: layers.map(({ path }) => path),
      },
      {},
      model,
      adapter.settings.steps,
    );
    return { model, adapter: lora, values: loraValues(alike) };
  } catch (error) {
    model.close();
    throw error;
  }
}

function loraValues(layers: readonly UniformLoraLayer[]): Map<string, Float32Array> {
  return new Map(layers.flatMap(({ path, a, b }) => [
    [`${path}.lora_A.weight`, a] as const,
    [`${path}.lora_B.weight`, b] as const,
  ]));
}

/** A cut of every layer, of some of them. */
function cutOfLayers(cut: WidthCut | undefined, layers: readonly number[]): WidthCut | undefined {
  if (!cut) return undefined;
  const some = <T>(all: readonly T[]) => layers.map((layer) => all[layer]!);
  return {
    groups: some(cut.groups),
    channels: some(cut.channels),
    ...(cut.compensation ? { compensation: some(cut.compensation) } : {}),
  };
}

/** What of the whole model each tensor of the smaller one is. */
function selection(
  whole: Architecture,
  model: Model,
  cut: WidthCut | undefined,
  layers: readonly number[],
): (
  name: string,
) => { from: string; rows?: readonly number[] | undefined; columns?: readonly number[] | undefined } {
  return cut ? selectorOf(whole, cut, layers, model.path) : (name) => ({ from: model.storedName(name) });
}

/** Columns of a matrix [n, width]; -1 is a column of zeros. */
function chosenColumns(matrix: Float32Array, width: number, columns: readonly number[]): Float32Array {
  const count = matrix.length / width;
  const chosen = new Float32Array(count * columns.length);
  for (let r = 0; r < count; r++) {
    columns.forEach((c, i) => {
      if (c >= 0) chosen[r * columns.length + i] = matrix[r * width + c]!;
    });
  }
  return chosen;
}

/** Rows of a matrix [n, width]; -1 is a row of zeros. */
function chosenRows(matrix: Float32Array, width: number, rows: readonly number[]): Float32Array {
  const chosen = new Float32Array(rows.length * width);
  rows.forEach((r, i) => {
    if (r >= 0) chosen.set(matrix.subarray(r * width, (r + 1) * width), i * width);
  });
  return chosen;
}

/**
 * Writes a shape of a run: its adapter as plain LoRA with the smaller model that it belongs on in `base/` beside it, the smaller model with
 * the adapter merged in, or that as a GGUF file.
 *
 * @param gguf How a GGUF file is written, and what it says of itself
 * @returns Steps the run had done
 * @throws {InputError} where the run has no such shape or no checkpoint, or `output` is there already
 */
export async function exportShape(
  run: ShapeOfRun,
  output: string,
  target: ShapeExport,
  gguf: GgufExportOptions,
): Promise<number> {
  if (await isTaken(output)) {
    throw new InputError("is already there", { where: output, hint: "choose another name, or remove it" });
  }
  const shape = await openShape(run);
  try {
    await writeShape(shape, run.recipe, output, target, gguf);
    return shape.step;
  } finally {
    shape.model.close();
  }
}

async function writeShape(
  { model, adapter, values }: CutShape,
  recipe: Recipe,
  output: string,
  target: ShapeExport,
  gguf: GgufExportOptions,
): Promise<void> {
  if (target === "merged") return await writeMerged(output, model, { adapter }, values);
  if (target === "gguf") {
    const folder = await system.makeTempDir({
      dir: dirname(resolve(output)),
      prefix: `.${basename(output)}.`,
    });
    try {
      await writeMerged(join(folder, "merged"), model, { adapter }, values);
      return await exportGguf(join(folder, "merged"), output, gguf);
    } finally {
      await system.remove(folder, { recursive: true });
    }
  }
  const origin: AdapterOrigin = {
    baseModel: resolve(output, "base"),
    recipe: adapter.recipe,
    seed: recipe.train.seed,
    name: gguf.name,
    ...(gguf.about ? { about: gguf.about } : {}),
  };
  await writeAdapter(output, adapter, values, origin, target);
  if (target === "gguf-adapter") return;
  try {
    await writeModelFolder(join(output, "base"), model);
  } catch (error) {
    await system.remove(output, { recursive: true });
    throw error;
  }
}
