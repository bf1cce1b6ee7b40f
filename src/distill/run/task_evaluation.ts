/**
 * The tasks of a recipe, at the end of its run: teacher, student before and student after in one table.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { OpenedModel } from "../evaluate/measured_model.ts";
import { keptMeasurements, measuringIdentity } from "../evaluate/kept_measurements.ts";
import type { OpenedTask } from "../evaluate/encoded_tasks.ts";
import { type EvaluatedModel, TaskEvaluator } from "../evaluate/measure_tasks.ts";
import { type Evaluation, evaluationOf, type MeasuredModel } from "../../evaluation/results/evaluation.ts";
import { readItems } from "../../evaluation/tasks/items.ts";
import { type EvaluationTask, needsTeacher } from "../../evaluation/tasks/task.ts";
import { writeTextAtomically } from "../../formats/files.ts";
import { familiesOf } from "../../registry/families.ts";
import { Model } from "../inputs/models.ts";
import { needsBase, openStudent } from "../inputs/prepare.ts";
import type { Attempt } from "./attempt.ts";
import { SERVED, teachersOf } from "../recipe/teachers.ts";

/** Where a run keeps what its models came to, in its folder. */
const EVALUATION_FOLDER = "evaluation";
/** The table, in that folder. */
const TABLE_FILE = "evaluation.json";

/** Someone asked to stop while models were measured. */
export class EvaluationStopped extends Error {}

/**
 * Reads what tasks ask.
 *
 * @throws {InputError} data that cannot be read, or that a task does not fit
 */
export async function openTasks(tasks: readonly EvaluationTask[]): Promise<OpenedTask[]> {
  const opened: OpenedTask[] = [];
  for (const task of tasks) opened.push({ task, items: await readItems(task) });
  return opened;
}

/**
 * Measures the models of a run whose training is done. What was measured before a kill is not measured again.
 *
 * @param steps Steps done
 * @param all The recipe's tasks
 * @param withTeacher Whether the teacher fits the device: without it, what compares with it is left out
 * @throws {EvaluationStopped} it is asked to stop
 */
export async function evaluateRun(
  attempt: Attempt,
  all: readonly OpenedTask[],
  steps: number,
  withTeacher: boolean,
): Promise<Evaluation> {
  const { host, recipe, gpu, prepared } = attempt;
  const tasks = withTeacher ? all : all.filter(({ task }) => !needsTeacher(task));
  if (!withTeacher) {
    const where = recipe.teacher.model === SERVED
      ? `the ${recipe.teacher.teachers ? "first " : ""}teacher is behind a server`
      : "the teacher's layers come from disk";
    const message = `${where}, so tasks are measured without it`;
    host.emit({ type: "warning", code: "no_teacher_tasks", message });
  }
  const { registry, folder } = host;
  const stop = new AbortController();
  const breathe = () => {
    host.emit({ type: "heartbeat" });
    if (attempt.stopAsked()) stop.abort(new EvaluationStopped());
  };
  const untrained = needsBase(prepared.student) ? join(folder, "base") : prepared.student.path;
  const teachers = teachersOf(recipe.teacher);
  const evaluator = new TaskEvaluator(tasks, {
    // Tasks compare with the first of several; with a student that teaches itself as it began.
    ...{ registry, gpu, teacher: teachers[0]!.model === "student" ? untrained : teachers[0]!.model },
    signal: stop.signal,
    onStage: (message) => attempt.stage("evaluate", message),
    onBreath: breathe,
  });
  const families = familiesOf(registry);
  const models: [name: string, model: EvaluatedModel, changes: unknown][] = [
    ["student before", {
      source: untrained,
      open: async () => await OpenedModel.of(await openStudent(recipe, undefined, families), registry),
    }, null],
    ["student after", { source: { folder, recipe, registry } }, steps],
    ...teachers.flatMap(({ model: source, name, layers, quantize, tokenizer }) => {
      // It is in the table, untrained.
      if (source === "student" || source === SERVED) return [];
      // Of several, those that are here are there at the end too.
      if (!withTeacher && !recipe.teacher.teachers) return [];
      const open = async () => {
        const model = await Model.open(
          source,
          { category: "weights", layers, quantize, tokenizer },
          families,
        );
        return await OpenedModel.of(model, registry);
      };
      const changes = layers ? { layers } : null;
      return [[
        name === undefined ? "teacher" : `teacher ${name}`,
        { source, open },
        changes,
      ]] as typeof models;
    }),
  ];
  const measured: MeasuredModel[] = [];
  for (const [name, model, changes] of models) {
    const path = join(folder, EVALUATION_FOLDER, `${name.replace(" ", "-")}.json`);
    const identity = measuringIdentity(tasks, changes);
    const measurements = await keptMeasurements(path, identity, () => evaluator.measure(model, name));
    measured.push({ name, measurements });
  }
  const evaluation = evaluationOf(tasks.map(({ task }) => task), measured);
  const text = JSON.stringify(evaluation, null, 1) + "\n";
  await writeTextAtomically(join(folder, EVALUATION_FOLDER, TABLE_FILE), text);
  return evaluation;
}
