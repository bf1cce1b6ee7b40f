/**
 * An evaluation on the terminal.
 *
 * @module
 */
import type { Evaluation } from "../../evaluation/results/evaluation.ts";
import { differenceTable, evaluationNotes, figureTable } from "../../evaluation/results/tables.ts";
import { table } from "./table.ts";

/** Its tables, and how to read them. */
export function evaluationLines(evaluation: Evaluation): string[] {
  const tables = [figureTable(evaluation), differenceTable(evaluation)].filter((words) =>
    words !== undefined
  );
  return [
    ...tables.flatMap(([head, ...rows]) => [...table(head!, rows), ""]),
    ...evaluationNotes(evaluation),
  ];
}
