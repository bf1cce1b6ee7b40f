/**
 * Exporting one shape of a run that has trained several, as a run.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { basename, join } from "@std/path";
import type { Registry } from "../../registry/registry.ts";
import { familiesOf } from "../../registry/families.ts";
import { InputError } from "../../base/errors.ts";
import { exportShape } from "../../distill/export/export_shape.ts";
import type { RunResult } from "../../distill/export/exports.ts";
import { openStudent } from "../../distill/inputs/prepare.ts";
import { shapeNamed } from "../../distill/inputs/shape_space.ts";
import { inputPaths } from "../../distill/recipe/paths.ts";
import type { Recipe } from "../../distill/recipe/recipe.ts";
import type { RunHost } from "../../distill/run/events.ts";
import { unreadable } from "../../formats/files.ts";
import type { GgufStorage } from "../../formats/gguf/export.ts";
import { distillationOf, isTask, parseRunRecipe, type RunRecipe, runRecipePaths } from "./run_recipe.ts";
import { type ExportTask, TASK_OUTPUTS } from "./task.ts";
import type { Work } from "./work.ts";

const STORAGES: Readonly<Record<NonNullable<ExportTask["storage"]>, GgufStorage>> = {
  q8_0: "Q8_0",
  f16: "F16",
  f32: "F32",
};

/** Where each target goes, and what the run's result calls it. */
const OUTPUTS = {
  merged: { name: TASK_OUTPUTS.model, paths: { merged: TASK_OUTPUTS.model } },
  peft: { name: TASK_OUTPUTS.adapter, paths: { adapter: TASK_OUTPUTS.adapter } },
  gguf: { name: TASK_OUTPUTS.gguf, paths: {} },
} as const;

/**
 * Cuts the shape out of the student and its adapter as of the run's last checkpoint, and writes it.
 *
 * @throws {InputError} the run has no such shape or no checkpoint
 */
export async function exportOfRun(
  { run, shape, target, storage = "q8_0" }: ExportTask,
  { folder, registry }: RunHost,
  work: Work,
): Promise<{ paths: RunResult["paths"]; findings: Readonly<Record<string, unknown>> }> {
  work.stage("export", `cutting ${shape} out of the student`);
  const { name, paths } = OUTPUTS[target];
  const recipe = await exportedRecipe(run);
  const steps = await exportShape({ folder: run, recipe, registry, shape }, join(folder, name), target, {
    ...{ storage: STORAGES[storage], name: `${basename(run)}, ${shape}`, about: {} },
  });
  work.progress({ done: 1, total: 1, message: `after ${steps} steps` });
  return { paths, findings: { shape, target, steps } };
}

/**
 * Requires that the run has the shape.
 *
 * @throws {InputError} it has not, or its student cannot be read
 */
export async function checkShape(
  { run, shape }: Pick<ExportTask, "run" | "shape">,
  registry: Registry,
): Promise<void> {
  const recipe = await exportedRecipe(run);
  const student = await openStudent(recipe, undefined, familiesOf(registry));
  try {
    if (!student.shapes) {
      throw new InputError("the run has trained one shape only", {
        where: run,
        hint: "Name a run whose recipe has student.shapes.",
      });
    }
    shapeNamed(shape, student.shapes);
  } finally {
    student.close();
  }
}

/** The recipe of the run that something is exported of. */
async function exportedRecipe(folder: string): Promise<Recipe> {
  const path = join(folder, "recipe.json");
  const text = await Deno.readTextFile(path).catch((error) => {
    throw unreadable(path, error);
  });
  let written: unknown;
  try {
    written = JSON.parse(text);
  } catch (cause) {
    throw new InputError(`is not valid JSON: ${(cause as Error).message}`, { where: path });
  }
  return distillationOf(parseRunRecipe(written, path), folder);
}

/**
 * Files and folders that a task reads: what it names, and what a run that it names had for a student.
 *
 * @throws {InputError} that run's recipe cannot be read
 */
export async function taskReads(task: RunRecipe): Promise<string[]> {
  const named = runRecipePaths(task).map(({ path }) => path);
  if (!isTask(task) || task.task !== "export") return named;
  const of = inputPaths(await exportedRecipe(task.run)).filter(({ of }) => of !== "dataset");
  return [...named, ...of.map(({ path }) => path)];
}
