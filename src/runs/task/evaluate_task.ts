/**
 * Measuring models on tasks as a run.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { basename, dirname, extname, join } from "@std/path";
import type { DeviceDescription } from "../../gpu/description.ts";
import type { DataWarning } from "../../distill/inputs/data_warnings.ts";
import { keptMeasurements, measuringIdentity } from "../../distill/evaluate/kept_measurements.ts";
import { TaskEvaluator } from "../../distill/evaluate/measure_tasks.ts";
import type { RunResult } from "../../distill/export/exports.ts";
import type { RunHost } from "../../distill/run/events.ts";
import { openTasks } from "../../distill/run/task_evaluation.ts";
import { evaluationOf, type MeasuredModel } from "../../evaluation/results/evaluation.ts";
import { figureText } from "../../evaluation/results/tables.ts";
import { writeTextAtomically } from "../../formats/files.ts";
import type { Registry } from "../../registry/registry.ts";
import type { Plan } from "../../tensor/plan.ts";
import { TunedDevices } from "../../tune/tuned_devices.ts";
import type { EvaluateTask } from "./task.ts";
import type { Work } from "./work.ts";

/** The table, in the run's folder. */
const TABLE_FILE = "evaluation.json";
/** What each model came to. */
const FOLDER = "evaluation";
const TEACHER = "teacher";

/** A model with its name in the table. */
interface NamedModel {
  readonly name: string;
  readonly model: string;
}

/** Measures the models of a task. What an earlier attempt has measured is not measured again. */
export async function evaluateModels(
  { models, teacher, tasks, contextLength }: EvaluateTask,
  { folder, registry, emit, gpu, tuning }: RunHost,
  work: Work,
): Promise<{ paths: RunResult["paths"]; findings: Readonly<Record<string, unknown>> }> {
  work.stage("evaluate", "reading tasks and models");
  const opened = await openTasks(tasks);
  const named = namedModels(models, teacher);
  let done = 0;
  const evaluator = new TaskEvaluator(opened, {
    ...{ registry, teacher, contextLength, signal: work.signal },
    ...(gpu ? { gpu } : {}),
    devices: new TunedDevices(tuning?.kept),
    onStage: (message) => work.stage("evaluate", message),
    onBreath: () => work.progress({ done, total: named.length * tasks.length, message: "measuring" }),
    onProgress: () => done++,
  });
  try {
    const measured: MeasuredModel[] = [];
    for (const [i, { name, model }] of named.entries()) {
      done = i * tasks.length;
      const measurements = await keptMeasurements(
        join(folder, FOLDER, `${i}.json`),
        measuringIdentity(opened, [name, teacher]),
        () => evaluator.measure({ source: model }, name),
      );
      measured.push({ name, measurements });
    }
    work.progress({ done: 1, total: 1, message: "measured" });
    const evaluation = evaluationOf(tasks, measured);
    await writeTextAtomically(join(folder, TABLE_FILE), JSON.stringify(evaluation, null, 1) + "\n");
    for (const { name, figures: [figure] } of evaluation.tasks) {
      const told = evaluation.models.map((model, i) => `${model} ${figureText(figure!.values[i]!)}`).join(
        ", ",
      );
      emit({ type: "stage", stage: "found", message: `${name}, ${figure!.title}: ${told}` });
    }
    return { paths: {}, findings: { evaluation } };
  } finally {
    evaluator.close();
  }
}

/** Models in the order of the table, the teacher last where it is none of them; two of one name have numbers. */
function namedModels(models: EvaluateTask["models"], teacher: string | undefined): NamedModel[] {
  const named: NamedModel[] = [];
  const add = (model: string, wanted: string) => {
    let name = wanted;
    for (let i = 2; named.some((one) => one.name === name); i++) name = `${wanted}-${i}`;
    named.push({ name, model });
  };
  for (const { model, name } of models) add(model, name ?? shortName(model));
  if (teacher !== undefined && !models.some(({ model }) => model === teacher)) add(teacher, TEACHER);
  return named;
}

/** The name of its folder or file; what a run made is named after the run. */
function shortName(path: string): string {
  const name = basename(path, extname(path).toLowerCase() === ".gguf" ? extname(path) : "");
  return name === "merged" || name === "base" ? basename(dirname(path)) : name;
}

/** What can be told of it without doing it. */
export async function previewEvaluation(
  { models, teacher, tasks, contextLength }: EvaluateTask,
  registry: Registry,
  device?: DeviceDescription,
): Promise<{ warnings: DataWarning[]; plan?: Plan }> {
  const evaluator = new TaskEvaluator(await openTasks(tasks), { registry, teacher, contextLength });
  let largest: Plan | undefined;
  for (const { model } of namedModels(models, teacher)) {
    for (const plan of await evaluator.plans({ source: model }, device)) {
      if (plan.totalBytes >= (largest?.totalBytes ?? 0)) largest = plan;
    }
  }
  return { warnings: [], ...(largest ? { plan: largest } : {}) };
}
