/**
 * `limbeck export`
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { basename } from "@std/path";
import { exportGguf } from "../distill/export_model.ts";
import { UsageError } from "../errors.ts";
import type { GgufStorage } from "../formats/gguf_export.ts";
import type { Command, Invocation } from "./command.ts";
import { MODEL_FLAGS, modelPath } from "./model_argument.ts";

const STORAGES: Readonly<Record<string, GgufStorage>> = { q8_0: "Q8_0", f16: "F16", f32: "F32" };

/** Writes a model in another format. */
export const exportModel: Command = {
  name: "export",
  usage: "(--model PATH | --run RUN) --output FILE.gguf",
  positional: [0, 0],
  details:
    "Writes GGUF, for llama.cpp and what builds on it. A run already leaves its adapter in PEFT's layout and the merged model " +
    "as a Hugging Face folder.",
  flags: {
    ...MODEL_FLAGS,
    output: { value: "FILE", help: "The file to write" },
    storage: {
      value: "TYPE",
      help: `How weights are stored: ${Object.keys(STORAGES).join(", ")} (default q8_0)`,
    },
    name: { value: "NAME", help: "The model's name in the file (default: the file's)" },
    about: { value: "KEY=VALUE", many: true, help: "More of general.*, such as license=MIT" },
  },
  examples: [
    "limbeck export --run last --output student.gguf",
    "limbeck export --model ./teacher --output teacher.gguf --storage f16 --about license=MIT",
  ],
  async run(invocation: Invocation): Promise<number> {
    const { flags, out } = invocation;
    const output = flags.text("output");
    if (output === undefined) throw new UsageError("name the file to write: --output FILE.gguf");
    if (!output.endsWith(".gguf")) throw new UsageError(`${output}: the file must end in .gguf`);
    const storage = STORAGES[(flags.text("storage") ?? "q8_0").toLowerCase()];
    if (!storage) throw new UsageError(`--storage must be one of ${Object.keys(STORAGES).join(", ")}`);
    await exportGguf(await modelPath(invocation), output, {
      storage,
      name: flags.text("name") ?? basename(output, ".gguf"),
      about: readAbout(flags.list("about")),
    });
    const { size } = await Deno.stat(output);
    out.value({ output, bytes: size });
    out.line(`Wrote ${output}`);
    return 0;
  },
};

function readAbout(pairs: readonly string[]): Record<string, string> {
  return Object.fromEntries(pairs.map((pair) => {
    const equals = pair.indexOf("=");
    if (equals < 1) throw new UsageError(`--about ${pair}: expected KEY=VALUE`);
    return [pair.slice(0, equals), pair.slice(equals + 1)];
  }));
}
