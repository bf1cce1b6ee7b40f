/**
 * The cross-entropy of a model on datasets.
 *
 * @module
 */
import type { Registry } from "../../registry/registry.ts";
import { type ColumnNames, openDataset } from "../../text/dataset.ts";
import { TunedDevices } from "../../tune/tuned_devices.ts";
import { encodeDataset, type EncodeReport } from "../../text/encode.ts";
import type { RunSource } from "../checkpoint/run_student.ts";
import { type DataWarning, encodingWarnings } from "../inputs/data_warnings.ts";
import type { DataRecipe } from "../recipe/recipe.ts";
import { OpenedModel } from "./measured_model.ts";

/** How {@linkcode evaluateModel} measures. */
export interface MeasureOptions {
  /** Folder or GGUF file; or a run, for its student with its adapter. */
  readonly model: string | RunSource;
  /** Longest sample; what the model was trained for when absent. */
  readonly contextLength?: number;
  /** Most rows used of each dataset. */
  readonly limit?: number;
  readonly mask?: DataRecipe["mask"];
  readonly endToken?: DataRecipe["endToken"];
  readonly tooLong?: DataRecipe["tooLong"];
  /** Puts prompt/completion rows through the chat template. */
  readonly template?: boolean;
  /** Reads the layers from disk, so that the model need not fit on the GPU. */
  readonly stream?: boolean;
  /** From which columns of a file rows are read, by its path; those of their own names where it says nothing. */
  readonly columns?: ReadonlyMap<string, ColumnNames>;
  readonly overlap?: number;
  readonly specialTokens?: DataRecipe["specialTokens"];
  readonly turns?: DataRecipe["turns"];
  readonly registry: Registry;
  /** Where the device is opened. */
  readonly devices?: TunedDevices;
}

/** What {@linkcode evaluateModel} measures. */
export interface EvaluateModelOptions extends MeasureOptions {
  /** JSON Lines file. */
  readonly data: string;
}

/** What is found on one dataset. */
export interface ModelEvaluation {
  /** Cross-entropy in nats a token. */
  readonly loss: number;
  /** Supervised tokens. */
  readonly tokens: number;
  readonly samples: number;
  /** What became of the rows. */
  readonly report: EncodeReport;
  readonly warnings: readonly DataWarning[];
}

/**
 * Opens a model and measures it.
 *
 * @throws {InputError} if the model or the data do not do
 */
export async function evaluateModel({ data, ...options }: EvaluateModelOptions): Promise<ModelEvaluation> {
  const [found] = await evaluateFiles([data], options);
  return found!;
}

/**
 * Opens a model and measures it on each of some datasets, in their order.
 *
 * @param files JSON Lines files
 * @throws {InputError} if the model or the data do not do
 */
export async function evaluateFiles(
  files: readonly string[],
  options: MeasureOptions,
): Promise<ModelEvaluation[]> {
  const opened = await OpenedModel.open(options.model, options.registry);
  try {
    const { tokenizer, template } = opened;
    const contextLength = opened.contextLength(options.contextLength);
    const encoded: ReturnType<typeof encodeDataset>[] = [];
    for (const file of files) {
      const columns = options.columns?.get(file);
      const rows = (await openDataset(file, columns ? { columns } : {})).slice(0, options.limit);
      encoded.push(encodeDataset(rows, {
        tokenizer,
        contextLength,
        promptsAsChat: options.template ?? false,
        ...(options.tooLong ? { tooLong: options.tooLong } : {}),
        ...(template ? { template } : {}),
        ...(options.mask ? { mask: options.mask } : {}),
        ...(options.overlap === undefined ? {} : { overlap: options.overlap }),
        ...(options.turns ? { turns: options.turns } : {}),
        specialInText: options.specialTokens === "parse",
        ...(options.endToken === undefined ? {} : { endToken: options.endToken }),
      }));
    }
    const { stream = false } = options;
    const all = encoded.flatMap(({ samples }) => samples);
    return await opened.measure({ contextLength, stream }, all, async (program) => {
      const found: ModelEvaluation[] = [];
      for (const { samples, report } of encoded) {
        const { losses, tokens } = await program.mean(samples);
        found.push({
          loss: losses["cross-entropy"]!,
          tokens,
          samples: samples.length,
          report,
          warnings: encodingWarnings("measured", report, contextLength),
        });
      }
      return found;
    }, options.devices ?? new TunedDevices());
  } finally {
    opened.close();
  }
}
