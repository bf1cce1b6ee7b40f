/**
 * What subsets are measured on: calibration samples, or multiple-choice questions.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { InputError } from "../../base/errors.ts";
import { type DataWarning, encodingWarnings } from "../../distill/inputs/data_warnings.ts";
import { samplesIdentity } from "../../distill/inputs/identity.ts";
import type { Model } from "../../distill/inputs/models.ts";
import { openTokenizer } from "../../distill/inputs/prepare.ts";
import type { StreamSizes } from "../../distill/program/metrics/measure.ts";
import { headChunks } from "../../distill/program/plan_training.ts";
import type { DataRecipe } from "../../distill/recipe/recipe.ts";
import type { DeviceDescription } from "../../gpu/description.ts";
import { openDataset } from "../../text/dataset.ts";
import { encodeDataset, type EncodedSample } from "../../text/encode.ts";
import { type EncodedQuestion, encodeQuestions, openQuestions } from "./questions.ts";

/** What is read, and how it becomes samples. */
export interface CalibrationOptions {
  /** JSON Lines files, used together. */
  readonly files: readonly string[];
  /** Whether they hold questions. */
  readonly questions: boolean;
  /** Longest sample; what the model was trained for, up to 1024, when absent. */
  readonly contextLength?: number;
  /** Most rows or questions used. */
  readonly limit?: number;
  readonly mask?: DataRecipe["mask"];
  readonly endToken?: DataRecipe["endToken"];
}

/** Calibration samples, or the choices of questions as samples. */
export interface Calibration {
  readonly samples: readonly EncodedSample[];
  readonly questions?: readonly EncodedQuestion[];
  readonly contextLength: number;
  /** Hash of all that a metric depends on. */
  readonly identity: string;
  readonly warnings: readonly DataWarning[];
}

/** Longest sample that is not asked for. */
const LONGEST = 1024;

/**
 * Reads and encodes them.
 *
 * @throws {InputError} a file that does not do, samples too long for the model, or no token to predict
 */
export async function openCalibration(model: Model, options: CalibrationOptions): Promise<Calibration> {
  const { tokenizer, template } = await openTokenizer(model);
  const most = model.config.contextLength;
  const contextLength = options.contextLength ?? Math.min(LONGEST, most);
  if (contextLength > most) {
    throw new InputError(`the model was trained for ${most} positions, not ${contextLength}`, {
      where: model.path,
      hint: "Give a smaller context length.",
    });
  }
  if (options.questions) {
    const read = (await Promise.all(options.files.map(openQuestions))).flat().slice(0, options.limit);
    const questions = encodeQuestions(read, tokenizer, contextLength);
    const samples = questions.flatMap(({ choices }) => choices);
    const answers = questions.map(({ choices, answer }) => [choices.length, answer]);
    const identity = createHash("sha256").update(`${samplesIdentity(samples)} ${JSON.stringify(answers)}`)
      .digest("hex");
    return { samples, questions, contextLength, identity, warnings: [] };
  }
  const rows = (await Promise.all(options.files.map((path) => openDataset(path)))).flat().slice(
    0,
    options.limit,
  );
  const { samples, report } = encodeDataset(rows, {
    ...{ tokenizer, contextLength },
    ...(template ? { template } : {}),
    ...(options.mask ? { mask: options.mask } : {}),
    ...(options.endToken === undefined ? {} : { endToken: options.endToken }),
  });
  return {
    ...{ samples, contextLength, identity: samplesIdentity(samples) },
    warnings: encodingWarnings("calibration", report, contextLength),
  };
}

/** Tokens in one pass, or the longest sample where that is more. */
const TOKENS = 1024;

/** Sizes of a stream that measures them. */
export function calibrationSizes(
  { samples, contextLength }: Calibration,
  vocabularySize: number,
  device: DeviceDescription,
): StreamSizes {
  const all = samples.reduce((sum, { ids }) => sum + ids.length, 0);
  const longest = samples.reduce((most, { ids }) => Math.max(most, ids.length), TOKENS);
  const sizes = headChunks(
    { tokensPerMicroBatch: Math.min(all, longest), headChunk: "auto" },
    vocabularySize,
    device,
  );
  return { ...sizes, positions: contextLength };
}
