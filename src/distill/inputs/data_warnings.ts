/**
 * What a user should know of the data before training on them.
 *
 * @module
 */
import { countShared } from "../../text/dataset.ts";
import type { EncodeReport } from "../../text/encode.ts";
import type { PreparedRun } from "./prepare.ts";

/** Something to beware of; `code` is stable. */
export interface DataWarning {
  readonly code: string;
  readonly message: string;
}

/** Rows that were changed or left out, and held-out rows that training sees too. */
export function dataWarnings(
  prepared: Pick<
    PreparedRun,
    | ("recipe" | "padding" | "sets")
    | ("trainReport" | "heldOutReport" | "trainRows" | "heldOutRows" | "train" | "heldOut")
  >,
): DataWarning[] {
  const { contextLength } = prepared.recipe.data;
  const shared = sharedRows(prepared);
  return [
    ...encodingWarnings("training", prepared.trainReport, contextLength),
    ...encodingWarnings("held-out", prepared.heldOutReport, contextLength),
    ...stopWarnings(prepared),
    ...duplicateWarnings(prepared),
    ...(shared === 0 ? [] : [{
      code: "held_out_seen",
      message: `${shared} of ${prepared.heldOutRows.length} held-out rows are also in the training data, ` +
        "so the held-out loss measures memory too",
    }]),
    ...unlikeWarnings("training", prepared.trainReport),
    ...unlikeWarnings("held-out", prepared.heldOutReport),
    ...sourceWarnings(prepared),
    ...paddingWarnings(prepared.padding),
  ];
}

/** Held-out rows that training sees too. */
function sharedRows(
  { sets, trainRows, heldOutRows }: Pick<PreparedRun, "sets" | "trainRows" | "heldOutRows">,
): number {
  const streamed = sets.train.flatMap(({ streamed }) => streamed ?? []);
  if (streamed.length === 0) return countShared(trainRows, heldOutRows);
  return Math.min(heldOutRows.length, streamed.reduce((sum, { shared }) => sum + shared, 0));
}

/** Samples none of which ends, where they are meant to. */
function stopWarnings({ recipe, trainReport }: Pick<PreparedRun, "recipe" | "trainReport">): DataWarning[] {
  const { samples, stopsLearnt } = trainReport;
  if (stopsLearnt > 0 || recipe.data.endToken === "none") return [];
  return [{
    code: "stop_not_learnt",
    message: `in none of ${samples} training samples is the token that ends a text or a turn learnt, ` +
      "so nothing teaches the student to stop",
  }];
}

/** Rows left out as copies. */
function duplicateWarnings({ sets }: Pick<PreparedRun, "sets">): DataWarning[] {
  const count = sets.train.reduce((sum, { duplicates = 0 }) => sum + duplicates, 0);
  if (count === 0) return [];
  return [{
    code: "duplicates_left_out",
    message: `${count} training ${count === 1 ? "row" : "rows"} left out: ${
      count === 1 ? "it says" : "they say"
    } the same as others`,
  }];
}

/** Rows that a teacher with a tokenizer of its own spells otherwise. */
function unlikeWarnings(which: string, { unlike = 0, rows }: EncodeReport): DataWarning[] {
  if (unlike === 0) return [];
  return [{
    code: "rows_unlike",
    message: `${unlike} of ${rows} ${which} rows are left out: the two tokenizers do not spell them alike`,
  }];
}

/** Rows of heads that stand for no token. */
function paddingWarnings(padding: PreparedRun["padding"]): DataWarning[] {
  if (!padding) return [];
  const { teacher, student, common } = padding;
  return [{
    code: "heads_cut",
    message:
      `the heads of teacher and student have ${teacher} and ${student} rows for a vocabulary of ${common} tokens: ` +
      `both are cut to these, here and in what is measured; what is written keeps its rows`,
  }];
}

/** Samples that train nothing, and losses that cannot be measured, because of who wrote the samples. */
function sourceWarnings(
  { recipe, train, heldOut }: Pick<PreparedRun, "recipe" | "train" | "heldOut">,
): DataWarning[] {
  const wanted = new Set(recipe.objective.map(({ source }) => source));
  const unused = wanted.has(undefined) ? 0 : train.filter(({ origin }) => !wanted.has(origin)).length;
  const there = new Set(heldOut.map(({ origin }) => origin));
  const missing = [...wanted].filter((source) => source !== undefined && !there.has(source));
  return [
    ...(unused === 0 ? [] : [{
      code: "samples_not_counted",
      message:
        `${unused} of ${train.length} training samples train nothing: no loss counts samples of their source`,
    }]),
    ...missing.map((source) => ({
      code: "source_not_held_out",
      message:
        `no held-out sample has the source "${source}", so the losses that count only such samples are not measured`,
    })),
  ];
}

/** The same for one dataset, named as `what`. */
export function encodingWarnings(what: string, report: EncodeReport, contextLength: number): DataWarning[] {
  const { cut, dropped, split, withoutTarget, lostTargets, supervisedTokens, rows } = report;
  const why = `longer than the context length of ${contextLength} tokens; the longest has ${report.longest}`;
  const lost = lostTargets === 0
    ? ""
    : `; with them ${lostTargets} of ${lostTargets + supervisedTokens} tokens that would be learnt`;
  const changed: [count: number, code: string, message: string][] = [
    [cut, "samples_cut", `${cut} of ${rows} ${what} rows cut: ${why}${lost}`],
    [dropped, "samples_dropped", `${dropped} of ${rows} ${what} rows left out: ${why}${lost}`],
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
