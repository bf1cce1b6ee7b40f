/**
 * The shapes of a run that trained several: what each lost on the held-out samples before training and loses after it.
 *
 * @module
 */
import type { RunEvent, ShapesEvent } from "../../distill/run/events.ts";
import { count, number3, short } from "../../base/units.ts";
import { escape } from "./charts/chart.ts";
import { frontierCharts } from "./charts/frontier_chart.ts";
import { measurementsOfShapes, trainedShapes } from "./run_shapes.ts";

/** What each shape loses against what it costs, as it was measured last; none where the run has one shape. */
export function shapesCharts(events: readonly RunEvent[]): string[] {
  const found = trainedShapes(events);
  return found ? frontierCharts(found.shapes, found.figure) : [];
}

/** The table with its heading; empty where the run has one shape, or has not been measured yet. */
export function shapesTable(events: readonly RunEvent[]): string {
  const measured = measurementsOfShapes(events);
  const last = measured.at(-1);
  if (!last) return "";
  const rows = last.shapes.map(({ name, layers, parameters, loss, tokensPerSecond }) => {
    const cells = [
      `<code>${escape(name)}</code>`,
      layers.join(", "),
      count(parameters),
      number3(lossOf(measured[0]!, name)),
      ...(last.step === 0 ? [] : [`<strong>${number3(loss)}</strong>`]),
      tokensPerSecond === null ? "" : short(tokensPerSecond),
    ];
    return `<tr>${cells.map((cell) => `<td>${cell}</td>`).join("")}</tr>`;
  });
  const after = last.step === 0 ? "" : "<th>trained</th>";
  return `<h2>Shapes</h2>
<table><thead><tr><th>shape</th><th>layers</th><th>parameters</th><th>only cut</th>${after}<th>tokens a second</th></tr></thead>
<tbody>${rows.join("\n")}</tbody></table>
<p class="note">Held-out cross-entropy in nats a token. The speed is that of measuring; a narrower shape runs masked here, so its speed shows when it is cut.</p>`;
}

function lossOf({ shapes }: ShapesEvent, name: string): number | null {
  return shapes.find((shape) => shape.name === name)?.loss ?? null;
}
