/**
 * `limbeck eval`
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { resolve } from "@std/path";
import { evaluateFiles } from "../../distill/evaluate/evaluate_model.ts";
import { heldOutSets, type Named, setName } from "../../distill/recipe/data_sets.ts";
import type { DataRecipe, HeldOutSet } from "../../distill/recipe/recipe.ts";
import type { ColumnNames } from "../../text/dataset.ts";
import type { Output } from "../terminal/output.ts";
import { table } from "../terminal/table.ts";
import { InputError, UsageError } from "../../base/errors.ts";
import { findRunFolder } from "../../runs/store/data_folder.ts";
import { readRun } from "../../runs/store/run_folder.ts";
import { isTask } from "../../runs/task/run_recipe.ts";
import type { Command, Invocation } from "../command.ts";
import { PROVIDER_FLAG } from "../provider_flag.ts";
import { MODEL_FLAGS, namedModel } from "../model_argument.ts";
import { endTokenFlag, maskFlag, SAMPLE_FLAGS } from "../sample_flags.ts";
import { noteTaken, tunedDevices } from "../tuned_devices.ts";
import { registryWith } from "../setup/registry.ts";
import { ensureAdapter } from "../setup/setup.ts";
import { count } from "../../base/units.ts";
import { evaluateTasks } from "./eval_tasks.ts";

/** Measures models. */
export const evaluate: Command = {
  name: "eval",
  usage: "[MODEL ...] [--task TASK ...] | (--model PATH | --run RUN) [--dataset FILE ...]",
  positional: [0, 20],
  loadsPlugins: true,
  opensGpu: true,
  details:
    "Prints the cross-entropy in nats a token and the perplexity. A run is measured on its own held-out data, encoded as its " +
    "recipe says, unless --dataset names other data. Several datasets are measured one by one.\n" +
    "With --task, models are measured beside each other on tasks: files, or a layout or kind with its data, such as mmlu=./mmlu-val, " +
    "perplexity=heldout.jsonl, agreement=heldout.jsonl. A MODEL is a folder, a GGUF file, hf:ORG/NAME, a folder of an adapter in PEFT's " +
    "layout, a run, or NAME= before one of them; differences are to the first. docs/evaluation.md says what tasks are.",
  flags: {
    ...MODEL_FLAGS,
    task: {
      value: "TASK",
      many: true,
      help: "A task's file, or LAYOUT=PATH or KIND=PATH; may be given several times",
    },
    teacher: { value: "MODEL", help: "The model that tasks compare with; it is measured too" },
    base: { value: "MODEL", help: "What adapters are for, where they do not say it" },
    markdown: { help: "Print tables in Markdown" },
    report: { value: "FILE", help: "Write the tables and reliability diagrams as a page" },
    dataset: { value: "FILE", many: true, help: "JSON Lines file; may be given several times" },
    "context-length": {
      value: "TOKENS",
      kind: "count",
      least: 2,
      help: "Longest sample in tokens (default: the run's, or the model's up to 1024)",
    },
    ...SAMPLE_FLAGS,
    "end-token": {
      value: "TOKEN",
      help: "Token put after a text: eos, bos, none or an id (default: the run's, or eos)",
    },
    mask: {
      value: "MASK",
      help: "Which tokens are measured: auto, completion or all (default: the run's, or auto)",
    },
    stream: {
      help: "Read the layers from disk for every pass, so that a model bigger than the GPU's memory does",
    },
    ...PROVIDER_FLAG,
    "no-setup": { help: "Do not look for a GPU adapter first, and install nothing" },
  },
  examples: [
    "limbeck eval --run last",
    "limbeck eval --model ./teacher --dataset heldout.jsonl --json",
    "limbeck eval before=./student after=last --teacher ./teacher --task agreement=heldout.jsonl --task mmlu=./mmlu-val",
  ],
  async run(invocation: Invocation): Promise<number> {
    const { args, flags, out } = invocation;
    if (flags.given("task")) return await evaluateTasks(invocation);
    const forTasks = ["teacher", "base", "markdown", "report"].find((name) => flags.given(name));
    if (args.length > 0 || forTasks) {
      throw new UsageError(
        `${args.length > 0 ? "models side by side are" : `--${forTasks} is`} for tasks: name one with --task`,
        {
          hint: "Without a task, --model or --run and --dataset give one model's cross-entropy.",
        },
      );
    }
    const model = await namedModel(invocation);
    const ofRun = await runData(invocation);
    const given = flags.list("dataset").map((path) => ({ path, name: setName(path) }));
    const sets: readonly Named<HeldOutSet>[] = given.length > 0 ? given : ofRun && heldOutSets(ofRun) || [];
    if (sets.length === 0) {
      throw new UsageError("name the data: --dataset FILE", {
        hint: ofRun
          ? "This run's held-out samples were split from its training data; they are in no file of their own."
          : undefined,
      });
    }
    if (!flags.on("no-setup")) await ensureAdapter((message) => out.note(message));
    const endToken = endTokenFlag(flags) ?? ofRun?.endToken ?? "auto";
    if (typeof model === "string" && !flags.given("end-token")) await noteOtherEnd(model, out);
    const files = sets.map(({ path }) => path);
    const devices = await tunedDevices(invocation);
    const measured = await evaluateFiles(files, {
      ...{ model, devices },
      registry: typeof model === "string" ? await registryWith(invocation.plugins) : model.registry,
      mask: maskFlag(flags) ?? ofRun?.mask ?? "auto",
      endToken,
      ...(ofRun ? { tooLong: ofRun.tooLong, template: ofRun.template } : {}),
      ...(ofRun?.overlap === undefined ? {} : { overlap: ofRun.overlap }),
      ...(ofRun?.specialTokens ? { specialTokens: ofRun.specialTokens } : {}),
      ...(ofRun?.turns ? { turns: ofRun.turns } : {}),
      columns: columnsOf(sets, ofRun),
      ...optional("contextLength", flags.number("context-length") ?? ofRun?.contextLength),
      ...optional("limit", flags.number("limit")),
      stream: flags.on("stream"),
    });
    const found = measured.map(({ loss, ...rest }, i) => ({
      data: files[i]!,
      loss,
      perplexity: Math.exp(loss),
      ...rest,
    }));
    noteTaken(devices, invocation);
    for (const { message } of found.flatMap(({ warnings }) => warnings)) out.warn(message);
    const [first] = found as [typeof found[number]];
    out.value({
      model: typeof model === "string" ? model : model.folder,
      ...first,
      kernels: devices.taken,
      ...(found.length > 1 ? { sets: found.map((set, i) => ({ name: sets[i]!.name, ...set })) } : {}),
    });
    if (found.length === 1) {
      const { loss, perplexity, samples, tokens, data } = first;
      out.line(`loss        ${loss.toFixed(4)} nats a token\nperplexity  ${perplexity.toFixed(3)}`);
      out.line(`measured on ${samples} samples, ${count(tokens)} tokens of ${data}`);
      return 0;
    }
    const rows = found.map(({ loss, perplexity, samples, tokens }, i) => [
      ...[sets[i]!.name, loss.toFixed(4), perplexity.toFixed(3)],
      ...[String(samples), count(tokens)],
    ]);
    for (const line of table(["set", "loss, nats a token", "perplexity", "samples", "tokens"], rows)) {
      out.line(line);
    }
    return 0;
  },
};

/** How the named run's data are encoded. */
async function runData({ flags }: Invocation): Promise<DataRecipe | undefined> {
  const run = flags.text("run");
  if (run === undefined) return undefined;
  const { recipe } = await readRun(await findRunFolder(run, flags.text("data")));
  return isTask(recipe) ? undefined : recipe.data;
}

/** A model that a run left may have learnt with texts that end otherwise; its folder does not say so. */
async function noteOtherEnd(model: string, out: Output): Promise<void> {
  const around = await readRun(resolve(model, "..")).catch((error) => {
    if (error instanceof InputError) return undefined;
    throw error;
  });
  if (!around || isTask(around.recipe)) return;
  const { endToken } = around.recipe.data;
  if (endToken === "auto" || endToken === "eos") return;
  out.note(
    `texts are taken to end with eos, those of the run that made this model with ${endToken}: --end-token ${endToken} measures as it did`,
  );
}

function optional<K extends string>(name: K, value: number | undefined): { [key in K]?: number } {
  return value === undefined ? {} : { [name]: value } as { [key in K]?: number };
}

/** From which columns rows of each file are read: those of the run, which its own files may have others than. */
function columnsOf(
  sets: readonly HeldOutSet[],
  data: DataRecipe | undefined,
): ReadonlyMap<string, ColumnNames> {
  return new Map(sets.flatMap(({ path, columns = data?.columns }) => columns ? [[path, columns]] : []));
}
