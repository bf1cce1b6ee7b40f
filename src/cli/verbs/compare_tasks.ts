/**
 * The tasks of a comparison: measured of each run that is done, of the models beside them, of the teacher and of the student before.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { keptMeasurements, measuringIdentity } from "../../distill/evaluate/kept_measurements.ts";
import { type EvaluatedModel, TaskEvaluator } from "../../distill/evaluate/measure_tasks.ts";
import { OpenedModel } from "../../distill/evaluate/measured_model.ts";
import { openStudent } from "../../distill/inputs/prepare.ts";
import { SERVED } from "../../distill/recipe/teachers.ts";
import { openTasks } from "../../distill/run/task_evaluation.ts";
import { type EvaluationTask, isWritten, needsTeacher } from "../../evaluation/tasks/task.ts";
import { familiesOf } from "../../registry/families.ts";
import {
  BEFORE,
  type ComparedRun,
  type Comparison,
  measurable,
  TEACHER,
} from "../../runs/compare/comparison.ts";
import { taskFile } from "../../runs/compare/compared_tasks.ts";
import { readRun } from "../../runs/store/run_folder.ts";
import { distillationOf } from "../../runs/task/run_recipe.ts";
import type { Registry } from "../../registry/registry.ts";
import type { Output } from "../terminal/output.ts";

/** Measures what is done of a comparison on its tasks, where it has not been measured. */
export async function measureComparedTasks(
  comparison: Comparison,
  runs: readonly ComparedRun[],
  registry: Registry,
  out: Output,
): Promise<void> {
  const { folder, plan } = comparison;
  if (!plan.tasks || plan.tasks.length === 0) return;
  const [{ recipe }] = plan.recipes as [typeof plan.recipes[number]];
  // Of a teacher behind a server nothing is here that could be measured, or compared with.
  const teacher = recipe.teacher.model === SERVED ? undefined : recipe.teacher.model;
  const tasks = await openTasks(
    teacher === undefined ? plan.tasks.filter((task) => !needsTeacher(task)) : plan.tasks,
  );
  const evaluator = new TaskEvaluator(tasks, {
    ...{ registry, teacher },
    onStage: (message) => out.line(capital(message)),
  });
  const measure = async (file: string, name: string, model: EvaluatedModel, changes: unknown) => {
    await keptMeasurements(
      taskFile(folder, file),
      measuringIdentity(tasks, changes),
      () => evaluator.measure(model, name),
    );
  };
  try {
    for (const { name, run, path } of measurable(comparison, runs)) {
      const runPath = join(folder, name);
      const source = run
        ? { folder: runPath, recipe: distillationOf((await readRun(runPath)).recipe, runPath), registry }
        : path!;
      await measure(name, name, { source }, run?.step ?? path);
    }
    if (teacher !== undefined) await measure(TEACHER, "the teacher", { source: teacher }, null);
    const done = runs.find((run) => run.after !== null && run.recipe === plan.recipes[0]!.name);
    // Where texts are written, the student before is what a run of it has left as its base.
    if (done || !plan.tasks.some(isWritten)) {
      const open = async () =>
        await OpenedModel.of(await openStudent(recipe, undefined, familiesOf(registry)), registry);
      const base = await baseOfRun(folder, done, recipe);
      await measure(BEFORE, "the student before", { source: base, open }, null);
    }
  } finally {
    evaluator.close();
  }
}

/** What a run's adapter stands on. */
async function baseOfRun(
  folder: string,
  run: ComparedRun | undefined,
  { teacher, student }: Comparison["plan"]["recipes"][number]["recipe"],
): Promise<string> {
  const own = student.model === "teacher" ? teacher.model : student.model;
  if (!run) return own;
  const base = join(folder, run.folder, "base");
  return await Deno.stat(base).then(() => base, () => own);
}

/** Tasks by their names; of two with one name the first, so that a flag comes before a recipe. */
export function uniqueTasks(tasks: readonly EvaluationTask[]): EvaluationTask[] {
  const found = new Map<string, EvaluationTask>();
  for (const task of tasks) if (!found.has(task.name)) found.set(task.name, task);
  return [...found.values()];
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
