/**
 * `report.html`: one file without scripts or links to elsewhere, light or dark as the reader's system is.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { basename, join } from "@std/path";
import { packingText } from "../../distill/inputs/packing_report.ts";
import type { PlanEvent, RunEvent, RunState } from "../../distill/run/events.ts";
import type { RunResult } from "../../distill/export/exports.ts";
import { writeTextAtomically } from "../../formats/files.ts";
import { type MetricsRow, metricsRows, readEvents } from "../store/event_log.ts";
import { readRun, type RunManifest } from "../store/run_folder.ts";
import type { MeasuredShape } from "../../shape/shapes.ts";
import type { Task } from "../task/task.ts";
import { isTask, mapRunRecipePaths, type RunRecipe } from "../task/run_recipe.ts";
import { chart, escape, type Series } from "./charts/chart.ts";
import { drawnRows } from "./charts/drawn_shares.ts";
import { shapesCharts, shapesTable } from "./shapes_table.ts";
import { teachersTable } from "./teachers_table.ts";
import { shrinkPicture } from "./shrink_report.ts";
import type { Evaluation } from "../../evaluation/results/evaluation.ts";
import { evaluationParts } from "./evaluation_report.ts";
import { htmlPage } from "./html_page.ts";
import { chosenSamples } from "./chosen_samples.ts";
import { withoutFolders } from "./path_names.ts";
import { bytes, count, duration, number3, short } from "../../base/units.ts";

/** What a report shows. */
export interface ReportInput {
  manifest: RunManifest;
  recipe: RunRecipe;
  events: readonly RunEvent[];
}

/**
 * Writes the report of a run into its folder and returns its path.
 *
 * @throws {InputError} no run there, or a file of it is damaged
 */
export async function writeReport(folder: string): Promise<string> {
  const { manifest, recipe } = await readRun(folder);
  const path = join(folder, "report.html");
  await writeTextAtomically(path, reportHtml({ manifest, recipe, events: await readEvents(folder) }));
  return path;
}

/** A report as HTML. Everything that a recipe, a model or a plugin wrote is escaped. */
export function reportHtml({ manifest, recipe, events }: ReportInput): string {
  const rows = metricsRows(events);
  const plan = events.findLast((event) => event.type === "plan");
  // A report is passed on, so it has names alone; the paths are in recipe.json.
  const named = mapRunRecipePaths(recipe, ({ path }) => basename(path));
  const body = [
    `<p class="note">${escape(overview(manifest, events, plan))}</p>`,
    ...(isTask(recipe) ? found(recipe, events) : [results(events)]),
    teachersTable(events),
    shapesTable(events),
    ...shapesCharts(events),
    ...curves(rows, events),
    samples(events),
    plan ? memory(plan) : "",
    problems(events),
    `<h2>Recipe</h2><pre>${escape(JSON.stringify(named, null, 2))}</pre>`,
  ];
  return htmlPage(`Limbeck run ${manifest.id}`, body.filter(Boolean));
}

function overview(manifest: RunManifest, events: readonly RunEvent[], plan: PlanEvent | undefined): string {
  const state = events.findLast((event) => event.type === "state")?.state ?? ("queued" satisfies RunState);
  const begun = manifest.createdAt.replace("T", " ").slice(0, 16);
  const attempts = events.at(-1)?.attempt ?? 0;
  return [
    state,
    `begun ${begun} UTC`,
    ...(attempts > 1 ? [`${attempts} attempts`] : []),
    ...(plan ? [`on ${plan.adapterName}${plan.provider ? ` through ${plan.provider}` : ""}`] : []),
    `Limbeck ${manifest.limbeck}`,
  ].join(", ");
}

function results(events: readonly RunEvent[]): string {
  const result = events.findLast((event) => event.type === "result")?.result;
  if (!result) return "";
  const { heldOut } = result;
  const gap = heldOut.gapClosed === null
    ? ""
    : `<p>${number3(heldOut.gapClosed)} of the gap to the teacher was closed, in ${result.steps} steps and ${
      duration(result.seconds)
    }.</p>`;
  return `<h2>Held-out loss</h2>
<table><thead><tr><th>teacher</th><th>student before</th><th>student after</th></tr></thead>
<tbody><tr><td>${number3(heldOut.teacher)}</td><td>${number3(heldOut.before)}</td><td><strong>${
    number3(heldOut.after)
  }</strong></td></tr></tbody></table>
<p class="note">Cross-entropy in nats a token over ${heldOut.tokens} tokens.</p>
${bits(result)}
${gap}${sets(result)}${drawn(result)}${
    result.evaluation ? evaluationParts(result.evaluation).join("\n") : ""
  }`;
}

/** What compares models with tokenizers of their own. */
function bits({ bitsPerByte }: RunResult): string {
  if (!bitsPerByte) return "";
  const { teacher, before, after } = bitsPerByte;
  return `<p>In bits a byte, which compare across tokenizers: teacher ${number3(teacher)}, student before ${
    number3(before)
  }, after <strong>${number3(after)}</strong>.</p>`;
}

/** Each of several held-out sets. */
function sets({ heldOutSets = [] }: RunResult): string {
  if (heldOutSets.length === 0) return "";
  const rows = heldOutSets.map(({ name, teacher, before, after, tokens }) =>
    `<tr><th>${escape(name)}</th>${
      [number3(teacher), number3(before), number3(after), count(tokens)].map((cell) => `<td>${cell}</td>`)
        .join("")
    }</tr>`
  );
  return `<h2>Held-out sets</h2>
<table><thead><tr><th></th><th>teacher</th><th>student before</th><th>student after</th><th>tokens</th></tr></thead>
<tbody>${rows.join("")}</tbody></table>
<p class="note">The first decides which checkpoint is the best.</p>`;
}

/** What was drawn of each training set. */
function drawn({ drawn = [] }: RunResult): string {
  if (drawn.length < 2) return "";
  const rows = drawnRows(drawn).map(({ name, rows, tokens, supervisedTokens }) =>
    `<tr><th>${escape(name)}</th><td>${rows}</td><td>${tokens}</td><td>${supervisedTokens}</td></tr>`
  );
  return `<h2>Drawn of each training set</h2>
<table><thead><tr><th></th><th>rows</th><th>tokens</th><th>of them learnt</th></tr></thead>
<tbody>${rows.join("")}</tbody></table>`;
}

/** What a task says that it found. */
function found(task: Task, events: readonly RunEvent[]): string[] {
  const result = events.findLast((event) => event.type === "result")?.result;
  if (!result?.findings) return [];
  const { shapes, timedOn, evaluation, ...others } = result.findings as {
    shapes?: readonly MeasuredShape[];
    timedOn?: string;
    evaluation?: Evaluation;
  };
  if (evaluation) return evaluationParts(evaluation);
  const timed = timedOn === undefined ? {} : { timedOn };
  return [
    ...(task.task === "shrink" && shapes ? shrinkPicture({ metric: task.metric, shapes, ...timed }) : []),
    `<h2>Found</h2><pre>${escape(JSON.stringify(others, null, 1))}</pre>`,
  ];
}

function curves(rows: readonly MetricsRow[], events: readonly RunEvent[]): string[] {
  const metrics = rows.filter((row) => row.type === "metrics");
  if (metrics.length === 0) return [];
  const steps = metrics.map((row) => row.step);
  const series = (name: string, value: (row: (typeof metrics)[number]) => number | null): Series => ({
    name,
    points: metrics.map((row, i) => [steps[i], value(row)]),
  });
  const ids = [...new Set(metrics.flatMap((row) => Object.keys(row.losses)))];
  const settings = [...new Set(metrics.flatMap((row) => Object.keys(row.controlled ?? {})))];
  const training = [
    series("objective", (row) => row.loss),
    ...ids.map((id) => series(id, (row) => row.losses[id] ?? null)),
  ];
  const measured = (model: string): Series["points"] =>
    rows.flatMap((row) =>
      row.type === "evaluation" && row.model === model ? [[row.step, row.loss] as const] : []
    );
  const result = events.findLast((event) => event.type === "result")?.result;
  const student = measured("student");
  // The last measurement may be in the result only.
  if (result && result.status === "succeeded" && student.at(-1)?.[0] !== result.steps) {
    student.push([result.steps, result.heldOut.after]);
  }
  const teacher = measured("teacher");
  const stands = teacher.length === 1 ? teacher[0]![1] : null;
  const last = steps.at(-1)!;
  const heldOut: Series[] = [
    { name: "student", points: student, marks: true },
    ...(stands !== null
      ? [{ name: "teacher", points: [[0, stands], [last, stands]] as Series["points"], dashed: true }]
      : teacher.length > 1
      ? [{ name: "teacher", points: teacher, dashed: true }]
      : []),
  ];
  return [
    student.length > 0 ? chart("Held-out loss", heldOut) : "",
    chart("Held-out loss of each set", setCurves(rows)),
    chart("Training loss", training),
    chart("Gradient norm", [series("gradient norm", (row) => row.gradientNorm)]),
    settings.length > 0
      ? chart("Set by controllers", settings.map((id) => series(id, (row) => row.controlled?.[id] ?? null)))
      : "",
    chart("Learning rate", [series("learning rate", (row) => row.learningRate)]),
  ];
}

/** The student's loss on each of several held-out sets; nothing where there is one. */
function setCurves(rows: readonly MetricsRow[]): Series[] {
  const measured = rows.flatMap((row) => row.type === "evaluation" && row.model === "student" ? [row] : []);
  const names = [...new Set(measured.flatMap(({ sets = {} }) => Object.keys(sets)))];
  return names.map((name) => ({
    name,
    points: measured.map(({ step, sets }) => [step, sets?.[name]?.loss ?? null]),
    marks: true,
  }));
}

function samples(events: readonly RunEvent[]): string {
  const chosen = chosenSamples(events);
  if (chosen.length === 0) return "";
  const rows = chosen.map(({ name, sample }) =>
    `<tr><th>${name}</th><td class="text"><span class="prompt">${escape(sample.prompt)}</span>${
      escape(sample.text)
    }</td></tr>`
  );
  return `<h2>Samples</h2><table><tbody>${rows.join("")}</tbody></table>`;
}

function memory(plan: PlanEvent): string {
  const rows = Object.entries(plan.bytes).map(([name, size]) =>
    `<tr><th>${escape(name)}</th><td>${bytes(size)}</td></tr>`
  );
  const { teacher, student, trainable } = plan.parameters;
  return `<h2>Memory on the GPU</h2>
<table><tbody>${rows.join("")}<tr><th>total</th><td><strong>${
    bytes(plan.totalBytes)
  }</strong></td></tr></tbody></table>
<p class="note">Parameters: teacher ${count(teacher)}, student ${count(student)}, trained ${
    count(trainable)
  }. Data: ${short(plan.data.trainSamples)} samples, ${count(plan.data.trainTokens)} tokens${
    plan.data.packing ? `; ${packingText(plan.data.packing, plan.data.trainSamples)}` : ""
  }.</p>`;
}

function problems(events: readonly RunEvent[]): string {
  const found = events.flatMap((event) =>
    event.type === "warning" || event.type === "error" ? [event.message] : []
  );
  if (found.length === 0) return "";
  return `<h2>Warnings and errors</h2><ul>${
    [...new Set(found)].map((text) => `<li>${escape(withoutFolders(text))}</li>`).join("")
  }</ul>`;
}
