/**
 * `limbeck generate`
 *
 * @module
 */
import { registryWith } from "../setup/registry.ts";
import { familiesOf } from "../../registry/families.ts";
import { generateTexts } from "../../distill/generate/generate_texts.ts";
import { InputError, UsageError } from "../../base/errors.ts";
import { isTaken, unreadable, unwritable, writeTextAtomically } from "../../formats/files.ts";
import type { Command, Invocation } from "../command.ts";
import { PROVIDER_FLAG } from "../provider_flag.ts";
import { MODEL_FLAGS, namedModel } from "../model_argument.ts";
import { ensureAdapter } from "../setup/setup.ts";
import { noteTaken, tunedDevices } from "../tuned_devices.ts";
import { generateRationales, RATIONALE_FLAGS, refuseRationaleFlags } from "./generate_rationales.ts";

/** A prompt and what the model wrote after it. */
interface Written {
  prompt: string;
  text: string;
  /** Whether the model ended it, rather than the limit. */
  finished: boolean;
}

/** Writes text. */
export const generate: Command = {
  name: "generate",
  usage: "(--model PATH | --run RUN) [--prompt TEXT ...] | --rationales FILE --output FILE",
  positional: [0, 0],
  loadsPlugins: true,
  opensGpu: true,
  details:
    "Several prompts are continued at once. Without a prompt, texts begin as the tokenizer begins them. " +
    "--count writes so many texts for each prompt; with --output they become a dataset that `data.train` can name. " +
    "With --pairs only what the model wrote is learnt of it, with --source a loss can count these rows alone.\n" +
    "With --rationales, the model, or one behind --server, writes why the answer of each question is the right one, which it is told; the " +
    "rows are what a student learns of them. Texts are kept as they come: after a kill the same command goes on. docs/teachers.md says more.",
  flags: {
    ...MODEL_FLAGS,
    prompt: { value: "TEXT", many: true, help: "Text to continue" },
    "prompts-file": { value: "FILE", help: "Prompts, one a line" },
    tokens: {
      value: "COUNT",
      kind: "count",
      least: 1,
      help: "Most new tokens of a text (default 128, of a rationale 256)",
    },
    temperature: {
      value: "NUMBER",
      kind: "number",
      least: 0,
      help: "Sampling temperature; 0 takes the likeliest token (default 0)",
    },
    "top-k": { value: "COUNT", kind: "count", help: "Choose among so many likeliest tokens (default all)" },
    "top-p": {
      value: "NUMBER",
      kind: "number",
      above: 0,
      most: 1,
      help: "Choose among the likeliest tokens of this total probability (default 1)",
    },
    seed: { value: "COUNT", kind: "count", most: 0xffff_ffff, help: "Seed of sampling (default 1)" },
    count: { value: "COUNT", kind: "count", least: 1, help: "Texts for each prompt (default 1)" },
    together: { value: "COUNT", kind: "count", least: 1, help: "Texts written at once (default 8)" },
    finished: { help: "Leave out texts that the limit cut off before the model ended them" },
    chat: { help: "Put each prompt into the model's chat template as the user's turn" },
    output: { value: "FILE", help: "Write texts as JSON Lines, prompt included, instead of printing them" },
    pairs: { help: "Write rows of prompt and completion, rather than of the whole text" },
    source: { value: "NAME", help: "Say in each row who wrote it, such as teacher or student" },
    ...RATIONALE_FLAGS,
    force: { help: "Replace an output file that is there" },
    stream: {
      help: "Read the layers from disk for every pass, so that a model bigger than the GPU's memory does",
    },
    ...PROVIDER_FLAG,
    "no-setup": { help: "Do not look for a GPU adapter first, and install nothing" },
  },
  examples: [
    "limbeck generate --run last --prompt 'Once upon a time'",
    "limbeck generate --model ./student --prompt Hello --temperature 0.8 --top-p 0.95 --seed 7",
    "limbeck generate --model teacher.gguf --count 400 --temperature 1 --output train.jsonl",
    "limbeck generate --model ./student --prompts-file prompts.txt --pairs --source student --output student.jsonl",
    "limbeck generate --rationales questions.jsonl --model ./teacher --examples solved.jsonl --per-question 2 --output rationales.jsonl",
  ],
  async run(invocation: Invocation): Promise<number> {
    const { flags, out } = invocation;
    if (flags.given("rationales")) return await generateRationales(invocation, checkOutput);
    refuseRationaleFlags(flags);
    const model = await namedModel(invocation);
    const prompts = await readPrompts(invocation);
    const sampling = {
      maxTokens: flags.number("tokens") ?? 128,
      temperature: flags.number("temperature") ?? 0,
      topK: flags.number("top-k") ?? 0,
      topP: flags.number("top-p") ?? 1,
      seed: flags.number("seed") ?? 1,
    };
    const output = flags.text("output");
    const [pairs, source] = [flags.on("pairs"), flags.text("source")];
    if (output !== undefined) await checkOutput(output, flags.on("force"));
    else if (pairs || source !== undefined) {
      throw new UsageError("--pairs and --source are of the rows that --output writes");
    }
    if (!flags.on("no-setup")) await ensureAdapter((message) => out.note(message));
    const shown = output === undefined && prompts.length === 1 && !out.json;
    // Only once the model writes: what goes wrong before is told alone.
    let begun = false;
    let done = 0;
    const begin = () => {
      if (!begun && shown) out.write(prompts[0]!);
      begun = true;
    };
    const devices = await tunedDevices(invocation);
    const texts = await generateTexts({
      ...{ model, devices },
      families: familiesOf(await registryWith(invocation.plugins)),
      prompts,
      ...sampling,
      batch: flags.number("together") ?? 8,
      chat: flags.on("chat"),
      stream: flags.on("stream"),
      ...(shown
        ? {
          onText: (_, piece) => {
            begin();
            out.write(piece);
          },
        }
        : {}),
      onDone: () => output !== undefined && out.note(`${++done} of ${prompts.length} texts`),
    });
    const written = texts.filter(({ finished }) => finished || !flags.on("finished"))
      .map(({ prompt, text, finished }): Written => ({ prompt, text, finished }));
    begin();
    if (shown) out.write("\n");
    noteTaken(devices, invocation);
    if (output === undefined) {
      out.value(written);
      if (!shown) {
        for (const { prompt, text } of written) out.line(prompt + text + (written.length > 1 ? "\n" : ""));
      }
    } else {
      // A model may end a text before it begins; no dataset can hold that.
      const rows = written.filter(({ prompt, text }) => (pairs ? text : (prompt + text).trim()) !== "")
        .map(({ prompt, text }) => ({
          ...(pairs ? { prompt, completion: text } : { text: (prompt + text).trim() }),
          ...(source === undefined ? {} : { source }),
        }));
      await writeTextAtomically(output, rows.map((row) => JSON.stringify(row) + "\n").join(""));
      out.value({ output, texts: rows.length });
      out.line(`Wrote ${rows.length} texts to ${output}`);
    }
    return 0;
  },
};

/** Refuses a file that could not be written at the end, before any work. */
async function checkOutput(path: string, replace: boolean): Promise<void> {
  if (!replace && await isTaken(path)) {
    throw new InputError("is already there", {
      where: path,
      hint: "Choose another name, or replace it with --force.",
    });
  }
  const probe = `${path}.${crypto.randomUUID().slice(0, 8)}.tmp`;
  try {
    await Deno.writeTextFile(probe, "", { createNew: true });
    await Deno.remove(probe);
  } catch (error) {
    throw unwritable(path, error);
  }
}

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
