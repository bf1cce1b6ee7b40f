/**
 * What each payload of a cache would take on disk for a run's models and data.
 *
 * @module
 */
import { cacheTemperatures } from "../objective/cache.ts";
import type { TrainingSetup } from "../program/plan_training.ts";
import type { PreparedRun } from "../inputs/prepare.ts";
import { sampleKeys } from "./origin.ts";
import { type PayloadFormat, rowStorage } from "./payload.ts";

/** A payload and its size. */
export interface PayloadSize {
  /** As a recipe writes it, such as `{topK: 64}`. */
  readonly payload: string;
  /** Of a position that counts. */
  readonly bytesPerToken: number;
  /** Of all samples, headers left out. */
  readonly cacheBytes: number;
}

/** The entries that are listed. */
const ENTRIES = [8, 64, 256] as const;
const SAMPLES = 50;

/** Payloads by what they take, as far as they fit the teacher's vocabulary. */
export function payloadSizes(
  { objective, teacher }: Pick<TrainingSetup, "objective" | "teacher">,
  { train, heldOut }: Pick<PreparedRun, "train" | "heldOut">,
): PayloadSize[] {
  const { vocabularySize: vocabulary, hiddenSize: width } = teacher.config;
  const rows = countRows([...train, ...heldOut], objective);
  const topK = (entries: number): PayloadFormat => ({
    target: { kind: "top-k", entries, temperatures: cacheTemperatures(objective.rows) },
    ...{ precision: "f16", vocabulary },
  });
  const formats: [string, PayloadFormat][] = [
    ...ENTRIES.filter((k) => k <= vocabulary).map((k): [string, PayloadFormat] => [`{topK: ${k}}`, topK(k)]),
    [`{samples: ${SAMPLES}}`, {
      target: { kind: "samples", entries: SAMPLES, temperatures: [] },
      ...{ precision: "f16", vocabulary },
    }],
    ...(["int8", "bf16", "f32"] as const).map((precision): [string, PayloadFormat] => [
      `{payload: hidden, precision: ${precision}}`,
      { width, precision },
    ]),
  ];
  return formats.map(([payload, format]) => {
    const { bytes: bytesPerToken } = rowStorage(format);
    return { payload, bytesPerToken, cacheBytes: bytesPerToken * rows };
  });
}

/** Rows that a cache of samples has: those of the same tokens are kept once. */
export function countRows(
  samples: PreparedRun["train"],
  { masks }: Pick<TrainingSetup["objective"], "masks">,
): number {
  const rows = new Map(
    [...sampleKeys(samples, masks).values()].map(({ hash, positions }) => [hash, positions.length]),
  );
  return rows.values().reduce((sum, count) => sum + count, 0);
}
