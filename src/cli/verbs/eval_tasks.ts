/**
 * `limbeck eval --task`: models beside each other on tasks.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { basename, isAbsolute, join } from "@std/path";
// @ts-types="../../../types/std_colors.d.ts"
import { bold } from "@std/fmt/colors";
import { InputError, UsageError } from "../../base/errors.ts";
import { isObject } from "../../base/json.ts";
import type { RunSource } from "../../distill/checkpoint/run_student.ts";
import { TaskEvaluator } from "../../distill/evaluate/measure_tasks.ts";
import { type Evaluation, evaluationOf, type MeasuredModel } from "../../evaluation/results/evaluation.ts";
import { evaluationMarkdown } from "../../evaluation/results/tables.ts";
import { readItems } from "../../evaluation/tasks/items.ts";
import { namedTask } from "../../evaluation/tasks/task.ts";
import { exists, requireFolderOf, writeTextAtomically } from "../../formats/files.ts";
import { writeAdaptedModel } from "../../merge/adapters/adapted_model.ts";
import type { Registry } from "../../registry/registry.ts";
import { familiesOf } from "../../registry/families.ts";
import { evaluationReportHtml } from "../../runs/report/evaluation_report.ts";
import type { Invocation } from "../command.ts";
import { localModel } from "../hub_models.ts";
import { namedModel, runModel } from "../model_argument.ts";
import { registryWith } from "../setup/registry.ts";
import { ensureAdapter } from "../setup/setup.ts";
import { noteTaken, tunedDevices } from "../tuned_devices.ts";
import { evaluationLines } from "../terminal/evaluation_lines.ts";

/** A model as it is named on the command line. */
interface NamedModel {
  readonly name: string;
  readonly source: string | RunSource;
}

/**
 * Measures models on tasks and prints the table.
 *
 * @returns the exit code
 */
export async function evaluateTasks(invocation: Invocation): Promise<number> {
  const { args, flags, out } = invocation;
  const given = ["dataset", "end-token", "mask"].find((name) => flags.given(name));
  if (given) {
    throw new UsageError(
      `--${given} is for a cross-entropy without --task: a task says itself what it measures`,
    );
  }
  const limit = flags.number("limit");
  const tasks = await Promise.all(
    flags.list("task").map(async (named) => {
      const task = await namedTask(named);
      return limit === undefined ? task : { ...task, limit: Math.min(limit, task.limit ?? limit) };
    }),
  );
  const twice = tasks.find(({ name }, i) => tasks.findIndex((task) => task.name === name) !== i);
  if (twice) {
    throw new UsageError(`two tasks are called ${twice.name}: give one of them another name in its file`);
  }
  const opened = [];
  for (const task of tasks) opened.push({ task, items: await readItems(task) });
  const report = flags.text("report");
  if (report !== undefined) await requireFolderOf(report);
  const registry = await registryWith(invocation.plugins);
  const temporary: string[] = [];
  try {
    const models = await namedModels(args, invocation, registry, temporary);
    const teacher = flags.text("teacher");
    const teacherPath = teacher === undefined ? undefined : await localModel(teacher, invocation);
    const devices = await tunedDevices(invocation);
    const evaluator = new TaskEvaluator(opened, {
      ...{ registry, devices },
      teacher: teacherPath,
      contextLength: flags.number("context-length"),
      onStage: (message) => out.note(message),
    });
    if (!flags.on("no-setup")) await ensureAdapter((message) => out.note(message));
    const measured: MeasuredModel[] = [];
    try {
      // Differences are to the first model that was named; the teacher stands behind for scale.
      const known = teacherPath === undefined || models.some(({ source }) => source === teacherPath);
      const all = known ? models : [...models, { name: freeName("teacher", models), source: teacherPath }];
      for (const { name, source } of all) {
        measured.push({ name, measurements: await evaluator.measure({ source }, name) });
      }
    } finally {
      evaluator.close();
    }
    noteTaken(devices, invocation);
    await show(evaluationOf(tasks, measured), invocation);
    return 0;
  } finally {
    for (const folder of temporary) await Deno.remove(folder, { recursive: true });
  }
}

/** Prints what was measured, and only then writes the page: a full disk takes no figure away. */
async function show(evaluation: Evaluation, { flags, out }: Invocation): Promise<void> {
  out.value(evaluation);
  if (flags.on("markdown")) out.write(evaluationMarkdown(evaluation));
  else for (const line of evaluationLines(evaluation)) out.line(line);
  const report = flags.text("report");
  if (report === undefined) return;
  await writeTextAtomically(report, evaluationReportHtml(evaluation));
  out.note(`${bold(report)} has the tables and the reliability diagrams`);
}

/** The models that are named by arguments and flags. @param temporary Folders that are to be removed at the end */
async function namedModels(
  args: readonly string[],
  invocation: Invocation,
  registry: Registry,
  temporary: string[],
): Promise<NamedModel[]> {
  const { flags } = invocation;
  const models: NamedModel[] = [];
  for (const argument of args) {
    const [, given, path = argument] = /^([\w.-]+)=(.+)$/.exec(argument) ?? [];
    const source = await sourceOf(path, invocation, registry, temporary);
    const name = given ?? freeName(basename(path).replace(/^hf:|\.gguf$/gi, ""), models);
    if (models.some((model) => model.name === name)) throw new UsageError(`two models are called ${name}`);
    models.push({ name, source });
  }
  if (flags.given("model") || flags.given("run")) {
    const named = flags.text("model") ?? `run ${flags.text("run")}`;
    models.push({ name: freeName(basename(named), models), source: await namedModel(invocation) });
  }
  if (models.length === 0) throw new UsageError("name the models: limbeck eval MODEL ... --task TASK");
  return models;
}

/** A folder, a GGUF file, one of the hub, an adapter's folder, or a run. */
async function sourceOf(
  path: string,
  invocation: Invocation,
  registry: Registry,
  temporary: string[],
): Promise<string | RunSource> {
  if (await exists(join(path, "adapter_config.json"))) {
    const base = await localModel(invocation.flags.text("base") ?? await baseOf(path), invocation);
    const folder = await Deno.makeTempDir({ prefix: "limbeck-eval-" });
    temporary.push(folder);
    const merged = join(folder, "merged");
    const merge = { method: "cat" as const, rank: Infinity, adapters: [{ path, weight: 1 }] };
    await writeAdaptedModel(base, merge, merged, { families: familiesOf(registry) });
    return merged;
  }
  const isRun = await exists(join(path, "manifest.json")) ||
    !await exists(path) && /^(last|\d[\w-]*)$/.test(path);
  return isRun ? await runModel(path, invocation) : await localModel(path, invocation);
}

/** Where an adapter says that its base model is: from its folder, or as it is named. */
async function baseOf(adapter: string): Promise<string> {
  const path = join(adapter, "adapter_config.json");
  const config: unknown = JSON.parse(await Deno.readTextFile(path));
  const base = isObject(config) ? config.base_model_name_or_path : undefined;
  if (typeof base !== "string" || base === "") {
    throw new InputError("does not say which model the adapter is for", {
      where: path,
      hint: "Name it: --base MODEL.",
    });
  }
  const beside = join(adapter, base);
  return !isAbsolute(base) && await exists(beside) ? beside : base;
}

function freeName(wanted: string, models: readonly NamedModel[]): string {
  const taken = models.map(({ name }) => name);
  for (let i = 1;; i++) {
    const name = i === 1 ? wanted : `${wanted}-${i}`;
    if (!taken.includes(name)) return name;
  }
}
