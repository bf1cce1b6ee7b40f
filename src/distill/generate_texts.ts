/**
 * Texts written by a model on disk: from prompts, or from nothing.
 *
 * @module
 */
import { InputError } from "../errors.ts";
import { openGpu } from "../gpu/device.ts";
import { encodeChat } from "../text/conversation.ts";
import { TextStream } from "../text/text_stream.ts";
import { generationPlan, Generator, type GeneratorOptions } from "./generator.ts";
import { Model, uploadWeights } from "./models.ts";
import { openTokenizer, stopTokens } from "./prepare.ts";
import { type RunSource, RunStudent } from "./run_student.ts";
import type { SamplingOptions } from "./sampling.ts";

/** What {@linkcode generateTexts} does. */
export interface GenerateTextsOptions extends SamplingOptions {
  /** Folder or GGUF file; or a run, for its student with its adapter. */
  readonly model: string | RunSource;
  /** Texts to continue; an empty one starts at the beginning-of-text token. */
  readonly prompts: readonly string[];
  /** Puts each prompt into the model's chat template as the user's turn. */
  readonly chat?: boolean;
  readonly maxTokens: number;
  /** Sequences decoded at once. */
  readonly batch?: number;
  /** Piece by piece, as texts grow. */
  readonly onText?: (index: number, piece: string) => void;
  /** When a text is complete. */
  readonly onDone?: (result: TextResult) => void;
}

/** One text. */
export interface TextResult {
  readonly index: number;
  readonly prompt: string;
  readonly text: string;
  readonly tokens: number;
  /** Whether the model ended it, rather than the limit. */
  readonly finished: boolean;
}

/**
 * Opens a model, writes and closes it again.
 *
 * @throws {InputError} if the model does not do or a prompt is too long
 */
export async function generateTexts(options: GenerateTextsOptions): Promise<TextResult[]> {
  const run = typeof options.model === "string" ? undefined : await RunStudent.open(options.model);
  const model = run?.model ?? await Model.open(options.model as string, { category: "weights" });
  try {
    const { tokenizer, template } = await openTokenizer(model);
    if (options.chat && !template) {
      throw new InputError("the model has no chat template", { where: model.path });
    }
    const prompts = options.prompts.map((prompt) =>
      options.chat
        ? encodeChat(template!, tokenizer, [{ role: "user", content: prompt }], { addGenerationPrompt: true })
        : prompt === ""
        ? Int32Array.from(tokenizer.bosToken === undefined ? tokenizer.encode("\n") : [tokenizer.bosToken])
        : tokenizer.encode(prompt)
    );
    const longest = Math.max(...prompts.map((p) => p.length));
    const length = Math.min(model.config.contextLength, longest + options.maxTokens);
    const settings: GeneratorOptions = {
      sequences: Math.min(options.batch ?? 8, prompts.length),
      length,
      ...(run ? { attach: (graph, prompt) => run.attach(graph, prompt) } : {}),
    };
    const gpu = await openGpu();
    try {
      const weights = await uploadWeights(gpu, generationPlan(gpu.description, model, settings), [model]);
      await run?.upload(gpu, weights);
      const generator = await Generator.create(gpu, model, weights, settings);
      const streams = prompts.map((p) => new TextStream(tokenizer, { after: p }));
      const results: TextResult[] = [];
      for (let first = 0; first < prompts.length; first += settings.sequences) {
        const some = prompts.slice(first, first + settings.sequences);
        const texts = await generator.generate(some, {
          ...options,
          stopTokens: stopTokens(tokenizer, "auto"),
          firstSequence: first,
          onToken: (i, token) => options.onText?.(first + i, streams[first + i]!.push(token)),
        });
        texts.forEach(({ tokens, finished }, i) => {
          const index = first + i;
          const stream = new TextStream(tokenizer, { after: prompts[index]! });
          const text = Array.from(tokens, (t) => stream.push(t)).join("") + stream.end();
          const result = { index, prompt: options.prompts[index]!, text, tokens: tokens.length, finished };
          results.push(result);
          options.onDone?.(result);
        });
      }
      generator.destroy();
      return results;
    } finally {
      gpu.destroy();
    }
  } finally {
    model.close();
  }
}
