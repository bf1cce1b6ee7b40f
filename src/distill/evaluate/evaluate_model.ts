/**
 * The cross-entropy of a model on a dataset.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { openGpu } from "../../gpu/device.ts";
import type { Registry } from "../../registry/registry.ts";
import { compile } from "../../tensor/executable.ts";
import { plan, Program } from "../../tensor/plan.ts";
import { openDataset } from "../../text/dataset.ts";
import { encodeDataset, type EncodeReport } from "../../text/encode.ts";
import { type DataWarning, encodingWarnings } from "../inputs/data_warnings.ts";
import { measureLosses, traceLearnerLosses } from "../program/measure.ts";
import { Model, uploadWeights } from "../inputs/models.ts";
import { Objective } from "../objective/objective.ts";
import { openTokenizer } from "../inputs/prepare.ts";
import { checkPrompts } from "../program/prompt_features.ts";
import type { DataRecipe } from "../recipe/recipe.ts";
import { type RunSource, RunStudent } from "../checkpoint/run_student.ts";
import { headChunks } from "../program/plan_training.ts";

/** What {@linkcode evaluateModel} measures. */
export interface EvaluateModelOptions {
  /** Folder or GGUF file; or a run, for its student with its adapter. */
  readonly model: string | RunSource;
  /** JSON Lines file. */
  readonly data: string;
  /** Longest sample; what the model was trained for when absent. */
  readonly contextLength?: number;
  /** Most rows used. */
  readonly limit?: number;
  readonly mask?: DataRecipe["mask"];
  readonly endToken?: DataRecipe["endToken"];
  readonly tooLong?: DataRecipe["tooLong"];
  /** Puts prompt/completion rows through the chat template. */
  readonly template?: boolean;
  readonly registry: Registry;
}

/** What it finds. */
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

/** Tokens in one pass, or the longest sample where that is more. */
const TOKENS = 1024;

/**
 * Opens a model and measures it.
 *
 * @throws {InputError} if the model or the data do not do
 */
export async function evaluateModel(options: EvaluateModelOptions): Promise<ModelEvaluation> {
  const run = typeof options.model === "string" ? undefined : await RunStudent.open(options.model);
  const model = run?.model ?? await Model.open(options.model as string, { category: "weights" });
  try {
    const { tokenizer, template } = await openTokenizer(model);
    const contextLength = options.contextLength ?? Math.min(TOKENS, model.config.contextLength);
    if (contextLength > model.config.contextLength) {
      throw new InputError(
        `the model was trained for ${model.config.contextLength} positions, not ${contextLength}`,
        { where: model.path, hint: "Give a smaller context length." },
      );
    }
    const rows = (await openDataset(options.data)).slice(0, options.limit);
    const { samples, report } = encodeDataset(rows, {
      tokenizer,
      contextLength,
      promptsAsChat: options.template ?? false,
      ...(options.tooLong ? { tooLong: options.tooLong } : {}),
      ...(template ? { template } : {}),
      ...(options.mask ? { mask: options.mask } : {}),
      ...(options.endToken === undefined ? {} : { endToken: options.endToken }),
    });
    checkPrompts(samples, run?.adapter);
    const gpu = await openGpu();
    try {
      const { vocabularySize } = model.config;
      const objective = Objective.of(options.registry, [], vocabularySize);
      const tokensPerMicroBatch = Math.max(TOKENS, contextLength);
      const { tokens, chunkRows } = headChunks(
        { tokensPerMicroBatch, headChunk: "auto" },
        vocabularySize,
        gpu.description,
      );
      const program = new Program();
      const graph = program.block("evaluate");
      const losses = objective.rowLosses(objective.crossEntropy, graph);
      traceLearnerLosses(
        graph,
        "model",
        model,
        losses,
        { tokens, chunkRows, positions: contextLength },
        STATE,
        run && ((graph, prompt) => run.attach(graph, prompt)),
      );
      const planned = plan(program, gpu.description);
      const weights = await uploadWeights(gpu, planned, [model]);
      await run?.upload(gpu, weights);
      const executable = await compile(gpu, planned, { weights });
      objective.setEvaluationScalars(executable);
      const found = await measureLosses(executable, samples, {
        block: "evaluate",
        state: STATE,
        terms: objective.crossEntropy.terms,
        masks: objective.masks,
        tokensPerBatch: tokens,
      });
      return {
        loss: found.losses["cross-entropy"]!,
        tokens: found.tokens,
        samples: samples.length,
        report,
        warnings: encodingWarnings("measured", report, contextLength),
      };
    } finally {
      gpu.destroy();
    }
  } finally {
    model.close();
  }
}

const STATE = "losses";
