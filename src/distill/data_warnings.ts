/**
 * What a user should know of the data before training on them.
 *
 * @module
 */
import { countShared } from "../text/dataset.ts";
import type { EncodeReport } from "../text/encode.ts";
import type { PreparedRun } from "./prepare.ts";

/** Something to beware of; `code` is stable. */
export interface DataWarning {
  readonly code: string;
  readonly message: string;
}

/** Rows that were changed or left out, and held-out rows that training sees too. */
export function dataWarnings(
  prepared: Pick<PreparedRun, "recipe" | "trainReport" | "heldOutReport" | "trainRows" | "heldOutRows">,
): DataWarning[] {
  const { contextLength } = prepared.recipe.data;
  const shared = countShared(prepared.trainRows, prepared.heldOutRows);
  return [
    ...encodingWarnings("training", prepared.trainReport, contextLength),
    ...encodingWarnings("held-out", prepared.heldOutReport, contextLength),
    ...(shared === 0 ? [] : [{
      code: "held_out_seen",
      message: `${shared} of ${prepared.heldOutRows.length} held-out rows are also in the training data, ` +
        "so the held-out loss measures memory too",
    }]),
  ];
}

/** The same for one dataset, named as `what`. */
export function encodingWarnings(what: string, report: EncodeReport, contextLength: number): DataWarning[] {
  const { cut, dropped, split, withoutTarget, rows } = report;
  const why = `longer than the context length of ${contextLength} tokens; the longest has ${report.longest}`;
  const changed: [count: number, code: string, message: string][] = [
    [cut, "samples_cut", `${cut} of ${rows} ${what} rows cut: ${why}`],
    [dropped, "samples_dropped", `${dropped} of ${rows} ${what} rows left out: ${why}`],
    [split, "samples_split", `${split} of ${rows} ${what} rows split into several: ${why}`],
    [
      withoutTarget,
      "samples_without_target",
      `${withoutTarget} ${what} ${
        withoutTarget === 1 ? "sample" : "samples"
      } left out: no token is learnt in it`,
    ],
  ];
  return changed.filter(([count]) => count > 0).map(([, code, message]) => ({ code, message }));
}
