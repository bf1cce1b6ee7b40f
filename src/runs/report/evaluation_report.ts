/**
 * An evaluation as HTML: tables, reliability diagrams and some texts. Everything that a model or a task wrote is escaped.
 *
 * @module
 */
import type { EvaluatedTask, Evaluation } from "../../evaluation/results/evaluation.ts";
import {
  differenceTable,
  evaluationNotes,
  figureTable,
  type WordTable,
} from "../../evaluation/results/tables.ts";
import { escape } from "./charts/chart.ts";
import { htmlPage } from "./html_page.ts";
import { reliabilityChart } from "./charts/reliability_chart.ts";

/** The page as HTML. */
export function evaluationReportHtml(evaluation: Evaluation, title = "Evaluation"): string {
  return htmlPage(title, evaluationParts(evaluation));
}

/** The parts of a page that show an evaluation. */
export function evaluationParts(evaluation: Evaluation): string[] {
  const differences = differenceTable(evaluation);
  return [
    `<h2>Tasks</h2>${evaluationTableHtml(figureTable(evaluation))}`,
    ...(differences ? [`<h2>Differences</h2>${evaluationTableHtml(differences)}`] : []),
    evaluationNotes(evaluation).map((note) => `<p class="note">${escape(note)}</p>`).join("\n"),
    ...evaluation.tasks.map((task) => reliability(task, evaluation)),
    ...evaluation.tasks.map((task) => texts(task, evaluation)),
  ].filter((part) => part !== "");
}

/** A table of words as HTML. */
export function evaluationTableHtml([head, ...rows]: WordTable): string {
  const line = (cells: readonly string[], cell: "th" | "td") =>
    `<tr>${cells.map((text) => `<${cell}>${escape(text)}</${cell}>`).join("")}</tr>`;
  return `<table><thead>${line(head!, "th")}</thead>
<tbody>${rows.map((row) => line(row, "td")).join("\n")}</tbody></table>`;
}

function reliability({ name, calibration = [] }: EvaluatedTask, { models }: Evaluation): string {
  const series = calibration.flatMap((found, i) => (found ? [{ name: models[i]!, calibration: found }] : []));
  return reliabilityChart(`Reliability, ${name}`, series);
}

function texts({ name, texts = [] }: EvaluatedTask, { models }: Evaluation): string {
  const [first] = texts;
  if (!first || first.length === 0) return "";
  const cell = (text: string) => `<td class="text">${escape(text)}</td>`;
  const rows = first.map((shown, i) =>
    `<tr>${cell(shown.prompt)}${cell(shown.reference)}${
      models.map((_, m) => {
        const written = texts[m]?.[i];
        return written
          ? `<td class="text">${escape(written.text)} <span class="note">${
            written.score.toFixed(2)
          }</span></td>`
          : "<td></td>";
      }).join("")
    }</tr>`
  );
  return `<h2>${escape(`Answers, ${name}`)}</h2><table><thead><tr>${
    ["asked", "reference", ...models].map((title) => `<th>${escape(title)}</th>`).join("")
  }</tr></thead><tbody>${rows.join("\n")}</tbody></table>`;
}
