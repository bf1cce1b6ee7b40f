/**
 * What each of several teachers taught in a run, where each sample has one of them.
 *
 * @module
 */
import type { RunEvent, TeachersEvent } from "../../distill/run/events.ts";
import { count, number3 } from "../../base/units.ts";
import { metricsRows } from "../store/event_log.ts";
import { escape } from "./charts/chart.ts";

/** What one of several teachers taught. */
export interface TaughtPart {
  readonly name: string;
  /** Training samples that have it. */
  readonly samples: number;
  /** Its cross-entropy on them, and on all training samples, in nats a token; null where it was not measured. */
  readonly teacherLoss: number | null;
  readonly teacherLossOfAll: number | null;
  /** Supervised tokens of its samples that were learnt in all steps. */
  readonly tokens: number;
  /** Their share of all, from 0 to 1; null before the first step. */
  readonly share: number | null;
  /** Mean of the weighted losses over them in the first fifth of the steps and in the last. */
  readonly first: number | null;
  readonly last: number | null;
}

/** What every teacher taught, in the recipe's order; nothing where samples have no teacher of their own. */
export function taughtParts(events: readonly RunEvent[]): TaughtPart[] {
  const found = events.findLast((event): event is RunEvent & TeachersEvent => event.type === "teachers");
  if (!found) return [];
  const steps = metricsRows(events).flatMap((row) =>
    row.type === "metrics" && row.teachers ? [row.teachers] : []
  );
  const fifth = Math.ceil(steps.length / 5);
  const all = sum(steps.flat().map(({ tokens }) => tokens));
  return found.teachers.map(({ name, samples, loss, lossOfAll }) => {
    const own = (some: typeof steps) => some.flatMap((step) => step.filter((part) => part.name === name));
    const tokens = sum(own(steps).map((part) => part.tokens));
    return {
      ...{ name, samples, tokens, teacherLoss: loss, teacherLossOfAll: lossOfAll },
      share: all > 0 ? tokens / all : null,
      first: meanLoss(own(steps.slice(0, fifth))),
      last: meanLoss(own(steps.slice(steps.length - fifth))),
    };
  });
}

function meanLoss(parts: readonly { tokens: number; loss: number | null }[]): number | null {
  const learnt = parts.filter(({ tokens }) => tokens > 0);
  const tokens = sum(learnt.map((part) => part.tokens));
  if (tokens === 0 || learnt.some(({ loss }) => loss === null)) return null;
  return sum(learnt.map((part) => part.tokens * part.loss!)) / tokens;
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}

/** The table with its heading; empty where samples have no teacher of their own. */
export function teachersTable(events: readonly RunEvent[]): string {
  const parts = taughtParts(events);
  if (parts.length === 0) return "";
  const rows = parts.map((part) => {
    const cells = [
      part.samples,
      number3(part.teacherLoss),
      number3(part.teacherLossOfAll),
      `${count(part.tokens)}${part.share === null ? "" : ` (${Math.round(100 * part.share)} %)`}`,
      number3(part.first),
      `<strong>${number3(part.last)}</strong>`,
    ];
    return `<tr><th>${escape(part.name)}</th>${cells.map((cell) => `<td>${cell}</td>`).join("")}</tr>`;
  });
  return `<h2>Teachers</h2>
<table><thead><tr><th></th><th>samples</th><th>its loss on them</th><th>on all</th><th>tokens taught</th><th>objective, first fifth</th><th>last fifth</th></tr></thead>
<tbody>${rows.join("\n")}</tbody></table>
<p class="note">A teacher's loss is its own cross-entropy in nats a token; the objective is the weighted loss of the student over the tokens of its samples.</p>`;
}
