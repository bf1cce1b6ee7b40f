/**
 * `limbeck generate`
 *
 * @module
 */
import { generationPlan, Generator } from "../distill/generator.ts";
import { Model, uploadWeights } from "../distill/models.ts";
import { openTokenizer, stopTokens } from "../distill/prepare.ts";
import { InputError } from "../errors.ts";
import { unreadable, writeTextAtomically } from "../formats/files.ts";
import { openGpu } from "../gpu/device.ts";
import { TextStream } from "../text/text_stream.ts";
import type { TextTokenizer } from "../text/tokenizer.ts";
import type { Command, Invocation } from "./command.ts";
import { MODEL_FLAGS, modelPath } from "./model_argument.ts";
import { ensureAdapter } from "./setup.ts";

/** A prompt and what the model wrote after it. */
interface Written {
  prompt: string;
  text: string;
}

/** Writes text. */
export const generate: Command = {
  name: "generate",
  usage: "(--model PATH | --run RUN) [--prompt TEXT ...]",
  positional: [0, 0],
  details:
    "Several prompts are continued at once. Without a prompt, texts begin as the tokenizer begins them. " +
    "--count writes so many texts for each prompt; with --output they become a dataset that `data.train` can name.",
  flags: {
    ...MODEL_FLAGS,
    prompt: { value: "TEXT", many: true, help: "Text to continue" },
    "prompts-file": { value: "FILE", help: "Prompts, one a line" },
    tokens: { value: "COUNT", kind: "count", help: "Most new tokens of a text (default 128)" },
    temperature: {
      value: "NUMBER",
      kind: "number",
      help: "Sampling temperature; 0 takes the likeliest token (default 0)",
    },
    "top-k": { value: "COUNT", kind: "count", help: "Choose among so many likeliest tokens (default all)" },
    "top-p": {
      value: "NUMBER",
      kind: "number",
      help: "Choose among the likeliest tokens of this total probability (default 1)",
    },
    seed: { value: "COUNT", kind: "count", help: "Seed of sampling (default 1)" },
    count: { value: "COUNT", kind: "count", help: "Texts for each prompt (default 1)" },
    together: { value: "COUNT", kind: "count", help: "Texts written at once (default 8)" },
    output: { value: "FILE", help: "Write texts as JSON Lines, prompt included, instead of printing them" },
    "no-setup": { help: "Do not look for a GPU adapter first, and install nothing" },
  },
  examples: [
    "limbeck generate --run last --prompt 'Once upon a time'",
    "limbeck generate --model ./student --prompt Hello --temperature 0.8 --top-p 0.95 --seed 7",
    "limbeck generate --model teacher.gguf --count 400 --temperature 1 --output train.jsonl",
  ],
  async run(invocation: Invocation): Promise<number> {
    const { flags, out } = invocation;
    const path = await modelPath(invocation);
    const prompts = await readPrompts(invocation);
    const sampling = {
      maxTokens: flags.number("tokens") ?? 128,
      temperature: flags.number("temperature") ?? 0,
      topK: flags.number("top-k") ?? 0,
      topP: flags.number("top-p") ?? 1,
      seed: flags.number("seed") ?? 1,
    };
    if (!flags.on("no-setup")) await ensureAdapter((message) => out.note(message));
    const written = await write(path, prompts, { ...sampling, together: flags.number("together") ?? 8 });
    const output = flags.text("output");
    if (output === undefined) {
      out.value(written);
      for (const { prompt, text } of written) out.line(prompt + text + (written.length > 1 ? "\n" : ""));
    } else {
      const lines = written.map(({ prompt, text }) =>
        JSON.stringify({ text: (prompt + text).trim() }) + "\n"
      );
      await writeTextAtomically(output, lines.join(""));
      out.value({ output, texts: written.length });
      out.line(`Wrote ${written.length} texts to ${output}`);
    }
    return 0;
  },
};

async function readPrompts({ flags }: Invocation): Promise<string[]> {
  const prompts = [...flags.list("prompt")];
  const file = flags.text("prompts-file");
  if (file !== undefined) {
    const text = await Deno.readTextFile(file).catch((error) => {
      throw unreadable(file, error);
    });
    prompts.push(...text.split("\n").filter((line) => line.trim() !== ""));
  }
  const each = prompts.length > 0 ? prompts : [""];
  return each.flatMap((prompt) => Array<string>(flags.number("count") ?? 1).fill(prompt));
}

interface WriteOptions {
  maxTokens: number;
  temperature: number;
  topK: number;
  topP: number;
  seed: number;
  /** Sequences decoded at once. */
  together: number;
}

async function write(path: string, prompts: readonly string[], options: WriteOptions): Promise<Written[]> {
  const model = await Model.open(path, { category: "weights" });
  const gpu = await openGpu();
  try {
    const { tokenizer } = await openTokenizer(model);
    const ids = prompts.map((prompt) => tokenizer.encode(prompt));
    const empty = ids.findIndex((prompt) => prompt.length === 0);
    if (empty >= 0) {
      throw new InputError("an empty prompt has no first token: this tokenizer puts none before a text", {
        where: path,
        hint: "Name a prompt with --prompt.",
      });
    }
    const length = Math.min(
      model.config.contextLength,
      Math.max(...ids.map((prompt) => prompt.length)) + options.maxTokens,
    );
    const setting = { sequences: Math.max(1, Math.min(options.together, prompts.length)), length };
    const weights = await uploadWeights(gpu, generationPlan(gpu, model, setting), [model]);
    const generator = await Generator.create(gpu, model, weights, setting);
    try {
      const texts = await generator.generate(ids, { ...options, stopTokens: stopTokens(tokenizer, "auto") });
      return texts.map((text, i) => ({ prompt: prompts[i], text: decode(tokenizer, ids[i], text.tokens) }));
    } finally {
      generator.destroy();
      for (const buffer of weights.values()) buffer.destroy();
    }
  } finally {
    model.close();
    gpu.destroy();
  }
}

function decode(tokenizer: TextTokenizer, prompt: Int32Array, ids: Int32Array): string {
  const stream = new TextStream(tokenizer, { after: prompt });
  return Array.from(ids, (id) => stream.push(id)).join("") + stream.end();
}
