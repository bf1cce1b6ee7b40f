/**
 * `limbeck export`
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { basename } from "@std/path";
import { familiesOf } from "../../registry/families.ts";
import { exportGguf } from "../../distill/export/export_model.ts";
import { exportRun, type RunExport } from "../../distill/export/export_run.ts";
import { exportShape } from "../../distill/export/export_shape.ts";
import { UsageError } from "../../base/errors.ts";
import type { GgufStorage, TypeChoice } from "../../formats/gguf/export.ts";
import { ggufTensorBytes } from "../../formats/gguf/write.ts";
import { distillationOf } from "../../runs/task/run_recipe.ts";
import type { Command, Invocation } from "../command.ts";
import { findRunFolder } from "../../runs/store/data_folder.ts";
import { readRun } from "../../runs/store/run_folder.ts";
import { MODEL_FLAGS, modelPath } from "../model_argument.ts";
import { bytes } from "../../base/units.ts";
import type { Output } from "../terminal/output.ts";
import { table } from "../terminal/table.ts";
import { registryWith } from "../setup/registry.ts";
import { runPlugins } from "../setup/run_plugins.ts";

const STORAGES: Readonly<Record<string, GgufStorage>> = {
  q8_0: "Q8_0",
  q6_k: "Q6_K",
  q4_k_m: "Q4_K_M",
  q4_0: "Q4_0",
  f16: "F16",
  f32: "F32",
};

const TARGETS = ["gguf", "merged", "peft", "peft-plain", "gguf-adapter", "mlx", "limbeck"] as const;

/** Targets that are one GGUF file. */
const GGUF_TARGETS: readonly string[] = ["gguf", "gguf-adapter"];

/** Writes a model, or what a run has trained, in another format. */
export const exportModel: Command = {
  name: "export",
  usage: "(--model PATH | --run RUN [--shape SHAPE]) --output PATH [--target TARGET]",
  positional: [0, 0],
  loadsPlugins: true,
  details:
    "Targets: gguf, a model for llama.cpp and what builds on it; merged, a run's student with the adapter merged in, as a " +
    "Hugging Face folder; peft, a run's adapter in PEFT's layout; peft-plain, the adapter as plain LoRA of one rank and scale, " +
    "for programs that know neither rsLoRA nor ranks by layer, such as vLLM; gguf-adapter, the same as a file that llama.cpp puts on " +
    "its base; mlx, the adapter for mlx-lm; limbeck, the trained values of any adapter under their own names. A run already leaves " +
    "its adapter and the merged model. Of a run that has trained several shapes of its student, --shape takes one: without training, as " +
    "plain LoRA with the smaller model in base/ beside it, merged, or as GGUF. A quantised GGUF is another model than the one that the run " +
    "has measured; `limbeck eval --model FILE.gguf --dataset FILE.jsonl` measures it.",
  flags: {
    ...MODEL_FLAGS,
    target: { value: "TARGET", help: `${TARGETS.join(", ")} (default gguf)` },
    shape: { value: "SHAPE", help: "One shape of a run that trained several, such as depth=4,width=0.75" },
    output: { value: "PATH", help: "The file to write; a folder for targets that are no GGUF" },
    storage: {
      value: "TYPE",
      help: `How weights are stored in GGUF: ${Object.keys(STORAGES).join(", ")} (default q8_0)`,
    },
    name: { value: "NAME", help: "The name in a GGUF file (default: the file's)" },
    about: { value: "KEY=VALUE", many: true, help: "More of general.* in a GGUF file, such as license=MIT" },
  },
  examples: [
    "limbeck export --run last --output student.gguf",
    "limbeck export --run last --target peft-plain --output adapter-for-vllm",
    "limbeck export --run last --target gguf-adapter --output adapter.gguf",
    "limbeck export --run last --shape depth=4,width=0.75 --output small.gguf",
    "limbeck export --model ./teacher --output teacher.gguf --storage f16 --about license=MIT",
    "limbeck export --model ./teacher --output small.gguf --storage q4_k_m",
  ],
  async run(invocation: Invocation): Promise<number> {
    const { flags, out } = invocation;
    const target = TARGETS.find((t) => t === (flags.text("target") ?? "gguf"));
    if (!target) throw new UsageError(`--target must be one of ${TARGETS.join(", ")}`);
    const output = flags.text("output");
    const isGguf = GGUF_TARGETS.includes(target);
    if (output === undefined) {
      throw new UsageError(`name what to write: --output ${isGguf ? "FILE.gguf" : "FOLDER"}`);
    }
    if (isGguf && !output.endsWith(".gguf")) throw new UsageError(`${output}: the file must end in .gguf`);
    const shape = flags.text("shape");
    let types: readonly TypeChoice[] | undefined;
    const report = (chosen: readonly TypeChoice[]) => {
      types = chosen;
      showTypes(out, chosen);
    };
    if (shape !== undefined) await writeShape(invocation, output, target, shape, report);
    else if (target === "gguf") await writeGguf(invocation, output, report);
    else await writeTrained(invocation, output, target);
    const { size, isFile } = await Deno.stat(output);
    out.value({
      output,
      target,
      ...(isFile ? { bytes: size } : {}),
      ...(types ? { types: Object.fromEntries(types.map(({ name, type }) => [name, type])) } : {}),
    });
    out.line(`Wrote ${output}`);
    return 0;
  },
};

async function writeTrained(invocation: Invocation, output: string, target: RunExport): Promise<void> {
  const { flags } = invocation;
  const run = flags.text("run");
  if (run === undefined || flags.text("model") !== undefined) {
    throw new UsageError(`--target ${target} exports what a run has trained: name it with --run`);
  }
  if (flags.text("storage") !== undefined) throw new UsageError("--storage is for --target gguf");
  const [name, about] = [flags.text("name"), flags.list("about")];
  for (const [flag, given] of [["name", name !== undefined], ["about", about.length > 0]] as const) {
    if (given && target !== "gguf-adapter") {
      throw new UsageError(`--${flag} is for --target ${GGUF_TARGETS.join(" and ")}`);
    }
  }
  const folder = await findRunFolder(run, flags.text("data"));
  const { recipe: done, manifest } = await readRun(folder);
  const recipe = distillationOf(done, folder);
  const plugins = await runPlugins(manifest, invocation);
  await exportRun(folder, recipe, await registryWith(plugins), output, target, {
    ...(name === undefined ? {} : { name }),
    about: readAbout(about),
  });
}

async function writeShape(
  invocation: Invocation,
  output: string,
  target: (typeof TARGETS)[number],
  shape: string,
  report: (types: readonly TypeChoice[]) => void,
): Promise<void> {
  const { flags } = invocation;
  const run = flags.text("run");
  if (run === undefined || flags.text("model") !== undefined) {
    throw new UsageError("--shape takes one shape of a run: name it with --run");
  }
  if (target === "limbeck") {
    throw new UsageError("--target limbeck writes the values of all shapes: leave --shape out");
  }
  const folder = await findRunFolder(run, flags.text("data"));
  const { recipe: done, manifest } = await readRun(folder);
  const recipe = distillationOf(done, folder);
  const registry = await registryWith(await runPlugins(manifest, invocation));
  await exportShape({ folder, recipe, registry, shape }, output, target, {
    storage: readStorage(flags.text("storage")),
    name: flags.text("name") ?? basename(output, ".gguf"),
    about: readAbout(flags.list("about")),
    families: familiesOf(registry),
    report,
    warn: (message) => invocation.out.warn(message),
  });
}

/** The type of every tensor, in the order of the file. */
function showTypes(out: Output, types: readonly TypeChoice[]): void {
  const rows = types.map(({ name, shape, type, instead }) => [
    name,
    `[${shape.join(", ")}]`,
    type,
    bytes(ggufTensorBytes({ type, shape })),
    instead ? `its rows are no whole blocks of ${instead}` : "",
  ]);
  for (const line of table(["tensor", "shape", "type", "size", ""], rows)) out.line(line);
}

async function writeGguf(
  invocation: Invocation,
  output: string,
  report: (types: readonly TypeChoice[]) => void,
): Promise<void> {
  const { flags } = invocation;
  const storage = readStorage(flags.text("storage"));
  await exportGguf(await modelPath(invocation), output, {
    storage,
    name: flags.text("name") ?? basename(output, ".gguf"),
    about: readAbout(flags.list("about")),
    families: familiesOf(await registryWith(invocation.plugins)),
    report,
    warn: (message) => invocation.out.warn(message),
  });
}

function readStorage(type = "q8_0"): GgufStorage {
  const storage = STORAGES[type.toLowerCase()];
  if (!storage) throw new UsageError(`--storage must be one of ${Object.keys(STORAGES).join(", ")}`);
  return storage;
}

function readAbout(pairs: readonly string[]): Record<string, string> {
  return Object.fromEntries(pairs.map((pair) => {
    const equals = pair.indexOf("=");
    if (equals < 1) throw new UsageError(`--about ${pair}: expected KEY=VALUE`);
    return [pair.slice(0, equals), pair.slice(equals + 1)];
  }));
}
