/**
 * Sample texts of teacher and student, for the before and after.
 *
 * @module
 */
import { Generator } from "./generator.ts";
import { FLAT } from "./parameters.ts";
import type { PreparedRun } from "./prepare.ts";
import type { Trainer } from "./trainer.ts";
import { TextStream } from "../text/text_stream.ts";

/** Tokens of a held-out text that serve as a prompt where the recipe names none. */
const PROMPT_TOKENS = 12;

/** Continues the recipe's prompts, or the beginning of the first held-out sample. */
export async function writeSamples(
  trainer: Trainer,
  prepared: PreparedRun,
  which: "teacher" | "student",
): Promise<{ prompt: string; text: string }[]> {
  const { samples, data } = prepared.recipe;
  const { tokenizer } = prepared;
  const prompts = samples.prompts.length > 0
    ? samples.prompts.map((text) => tokenizer.encode(text))
    : [firstTokens(prepared)];
  const model = prepared[which];
  const { adapter } = trainer.setup;
  const weights = new Map(trainer.weights);
  weights.set(FLAT.parameters, trainer.executable.buffer(FLAT.parameters));
  const generator = await Generator.create(trainer.gpu, model, weights, {
    sequences: Math.min(4, prompts.length),
    // The rotary table of the training program is shared, and it is this long.
    length: data.contextLength,
    ...(which === "student"
      ? {
        attach: (graph) =>
          adapter.attach(graph, (name) => adapter.layout.view(graph, "parameters", name), false),
      }
      : {}),
  });
  try {
    const texts = await generator.generate(prompts.map((p) => p.subarray(0, data.contextLength - 1)), {
      maxTokens: samples.tokens,
      temperature: samples.temperature,
      topK: samples.topK,
      topP: samples.topP,
      seed: samples.seed,
      stopTokens: prepared.stopTokens,
    });
    return texts.map(({ tokens }, i) => {
      const stream = new TextStream(tokenizer, { after: prompts[i]! });
      const text = Array.from(tokens, (id) => stream.push(id)).join("") + stream.end();
      return { prompt: tokenizer.decode(prompts[i]!, { skipSpecial: true }), text };
    });
  } finally {
    generator.destroy();
  }
}

/** What stands before the first target of a held-out sample, or its first tokens if all of it is learnt. */
function firstTokens({ heldOut }: PreparedRun): Int32Array {
  const { ids, supervised } = heldOut[0]!;
  const first = supervised.indexOf(1);
  return ids.slice(0, first > 1 ? first : Math.min(PROMPT_TOKENS, ids.length - 1));
}
