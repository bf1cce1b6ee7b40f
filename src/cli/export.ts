/**
 * `limbeck export`
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { basename } from "@std/path";
import { exportGguf } from "../distill/export_model.ts";
import { exportRun } from "../distill/export_run.ts";
import { UsageError } from "../errors.ts";
import type { GgufStorage } from "../formats/gguf_export.ts";
import type { Command, Invocation } from "./command.ts";
import { findRun, readRun } from "../runs/run_folder.ts";
import { MODEL_FLAGS, modelPath } from "./model_argument.ts";
import { builtinRegistry } from "./registry.ts";

const STORAGES: Readonly<Record<string, GgufStorage>> = { q8_0: "Q8_0", f16: "F16", f32: "F32" };

const TARGETS = ["gguf", "merged", "peft", "peft-plain"] as const;

/** Writes a model, or what a run has trained, in another format. */
export const exportModel: Command = {
  name: "export",
  usage: "(--model PATH | --run RUN) --output PATH [--target TARGET]",
  positional: [0, 0],
  details:
    "Targets: gguf, a model for llama.cpp and what builds on it; merged, a run's student with the adapter merged in, as a " +
    "Hugging Face folder; peft, a run's adapter in PEFT's layout; peft-plain, the adapter as plain LoRA of one rank and scale, " +
    "for programs that know neither rsLoRA nor ranks by layer, such as vLLM. A run already leaves its adapter and the merged model.",
  flags: {
    ...MODEL_FLAGS,
    target: { value: "TARGET", help: `${TARGETS.join(", ")} (default gguf)` },
    output: { value: "PATH", help: "The file to write; a folder for targets other than gguf" },
    storage: {
      value: "TYPE",
      help: `How weights are stored in GGUF: ${Object.keys(STORAGES).join(", ")} (default q8_0)`,
    },
    name: { value: "NAME", help: "The model's name in a GGUF file (default: the file's)" },
    about: { value: "KEY=VALUE", many: true, help: "More of general.* in a GGUF file, such as license=MIT" },
  },
  examples: [
    "limbeck export --run last --output student.gguf",
    "limbeck export --run last --target peft-plain --output adapter-for-vllm",
    "limbeck export --model ./teacher --output teacher.gguf --storage f16 --about license=MIT",
  ],
  async run(invocation: Invocation): Promise<number> {
    const { flags, out } = invocation;
    const target = TARGETS.find((t) => t === (flags.text("target") ?? "gguf"));
    if (!target) throw new UsageError(`--target must be one of ${TARGETS.join(", ")}`);
    const output = flags.text("output");
    if (output === undefined) {
      throw new UsageError(`name what to write: --output ${target === "gguf" ? "FILE.gguf" : "FOLDER"}`);
    }
    if (target === "gguf") await writeGguf(invocation, output);
    else await writeFolder(invocation, output, target);
    const { size, isFile } = await Deno.stat(output);
    out.value({ output, target, ...(isFile ? { bytes: size } : {}) });
    out.line(`Wrote ${output}`);
    return 0;
  },
};

async function writeFolder(
  { flags }: Invocation,
  output: string,
  target: "merged" | "peft" | "peft-plain",
): Promise<void> {
  const run = flags.text("run");
  if (run === undefined || flags.text("model") !== undefined) {
    throw new UsageError(`--target ${target} exports what a run has trained: name it with --run`);
  }
  for (const flag of ["storage", "name"]) {
    if (flags.text(flag) !== undefined) throw new UsageError(`--${flag} is for --target gguf`);
  }
  if (flags.list("about").length > 0) throw new UsageError("--about is for --target gguf");
  const folder = await findRun(run, flags.text("runs"));
  const { recipe } = await readRun(folder);
  await exportRun(folder, recipe, builtinRegistry(), output, target);
}

async function writeGguf(invocation: Invocation, output: string): Promise<void> {
  const { flags } = invocation;
  if (!output.endsWith(".gguf")) throw new UsageError(`${output}: the file must end in .gguf`);
  const storage = STORAGES[(flags.text("storage") ?? "q8_0").toLowerCase()];
  if (!storage) throw new UsageError(`--storage must be one of ${Object.keys(STORAGES).join(", ")}`);
  await exportGguf(await modelPath(invocation), output, {
    storage,
    name: flags.text("name") ?? basename(output, ".gguf"),
    about: readAbout(flags.list("about")),
  });
}

function readAbout(pairs: readonly string[]): Record<string, string> {
  return Object.fromEntries(pairs.map((pair) => {
    const equals = pair.indexOf("=");
    if (equals < 1) throw new UsageError(`--about ${pair}: expected KEY=VALUE`);
    return [pair.slice(0, equals), pair.slice(equals + 1)];
  }));
}
