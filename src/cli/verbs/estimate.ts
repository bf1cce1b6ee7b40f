/**
 * `limbeck estimate`
 *
 * @module
 */
// @ts-types="../../../types/std_colors.d.ts"
import { bold, dim } from "@std/fmt/colors";
import { type Estimate, estimate as planned } from "../../distill/run/inspect_recipe.ts";
import type { ServedCost } from "../../distill/run/served_cost.ts";
import { streamCostText } from "../../distill/run/stream_cost.ts";
import type { Recipe } from "../../distill/recipe/recipe.ts";
import { cachesOf, servedTeachers } from "../../distill/recipe/teachers.ts";
import type { Command, Invocation } from "../command.ts";
import { PROVIDER_FLAG } from "../provider_flag.ts";
import { DATA_FOLDER } from "../../runs/store/data_folder.ts";
import { readTuned } from "../../runs/store/tuned_files.ts";
import { DATA_FLAG } from "../data_flag.ts";
import { RECIPE_FLAGS, withRecipe } from "./distill.ts";
import { table } from "../terminal/table.ts";
import { trainedLines } from "../terminal/trained_text.ts";
import { bytes, count, duration, percent, short } from "../../base/units.ts";

/** Forecasts what a recipe needs. */
export const estimate: Command = {
  name: "estimate",
  usage: "[RECIPE]",
  positional: [0, 1],
  loadsPlugins: true,
  opensGpu: true,
  details:
    "Plans the whole run without a single buffer: the bytes are exact. Where there is no GPU, WebGPU's default limits are planned for. " +
    "With --measure the first two steps are run, which needs a GPU, for a forecast of the time.",
  flags: {
    ...RECIPE_FLAGS,
    ...DATA_FLAG,
    ...PROVIDER_FLAG,
    measure: { help: "Run two steps to forecast the time" },
  },
  examples: [
    "limbeck estimate my.yaml",
    "limbeck estimate my.yaml --set train.tokensPerMicroBatch=4096",
    "limbeck estimate my.yaml --measure",
  ],
  async run(invocation: Invocation): Promise<number> {
    const { flags, out } = invocation;
    return await withRecipe(invocation, async (opened) => {
      const kept = await readTuned(flags.text("data") ?? DATA_FOLDER, (message) => out.warn(message));
      const found = await planned(opened, flags.on("measure"), kept);
      const { adapter, teacherPass, seconds } = found;
      out.value(found);
      for (const line of memoryLines(found, adapter)) out.line(line);
      if (teacherPass) {
        out.line();
        const when = "before training, where the teacher's cache is not there yet";
        for (const line of memoryLines(teacherPass, when)) out.line(line);
        const { cacheBytes, bytesPerToken } = teacherPass;
        out.line(`The cache takes ${bytes(cacheBytes)} on disk, ${bytesPerToken} bytes a token that counts.`);
        out.line();
        for (const line of payloadLines(found)) out.line(line);
      }
      const fields = servedTeachers(opened.recipe.teacher).map(({ field }) => field);
      for (const [i, served] of (found.servedTeachers ?? [found.served]).entries()) {
        for (const line of served ? servedLines(served, fields[i]!) : []) out.line(line);
      }
      if (found.stream) out.line(sentence(streamCostText(found.stream)));
      out.line();
      for (const line of trainedLines(opened.setup)) out.line(line);
      for (const line of readingLines(opened.recipe, found)) out.line(line);
      if (found.activationCheckpointing) out.line("Activations are computed twice to save memory.");
      if (seconds) {
        out.line(
          `About ${duration(seconds.total)}: ${duration(seconds.setUp)} to begin, ${
            short(seconds.step)
          } s a step, ${short(seconds.evaluation)} s a measurement of the held-out loss${
            seconds.rollout === undefined ? "" : `, ${short(seconds.rollout)} s a rollout`
          }.`,
        );
        if (teacherPass) out.line("The pass of the teacher over the data before that was not measured.");
      }
      return 0;
    }, ({ teacher }) => cachesOf(teacher).length > 0 ? "whole" : "look");
  },
};

function sentence(text: string): string {
  return `${text[0]!.toUpperCase()}${text.slice(1)}.`;
}

function memoryLines(
  { bytes: byCategory, totalBytes, weightTypes = {} }:
    & Pick<Estimate, "bytes" | "totalBytes">
    & Partial<Pick<Estimate, "weightTypes">>,
  where: string,
): string[] {
  const named = Object.entries(byCategory).map(([name, size]) => {
    const types = Object.keys(weightTypes[name] ?? {});
    return [types.length ? `${name} (${types.join(", ")})` : name, size] as const;
  });
  const widest = Math.max(...named.map(([name]) => name.length));
  const row = (name: string, size: number) => `  ${name.padEnd(widest)}  ${bytes(size).padStart(10)}`;
  return [
    bold("Memory on the GPU") + dim(` (${where})`),
    ...named.map(([name, size]) => row(name, size)),
    bold(row("total", totalBytes)),
  ];
}

/** What a server will be asked for. */
function servedLines(
  { name, model, url, requests, tokens, cacheBytes, bytesPerToken, minutes, withinBudget }: ServedCost,
  field: string,
): string[] {
  const whose = name === undefined ? "The" : `${name}: the`;
  return [
    "",
    `Before training, ${model} of ${url} is asked about ${count(requests)} samples, ${count(tokens)} tokens${
      minutes > 0 ? `, in ${duration(minutes * 60)} at the least` : ""
    }; what is there already is not asked again.`,
    `${whose} cache takes ${bytes(cacheBytes)} on disk, ${bytesPerToken} bytes a token that counts.`,
    ...(withinBudget ? [] : [`${field}.budget does not allow as much.`]),
  ];
}

/** What other payloads would take. */
function payloadLines({ payloads }: Estimate): string[] {
  const rows = payloads.map(({ payload, bytesPerToken, cacheBytes }) => [
    ...[payload, String(bytesPerToken), bytes(cacheBytes)],
  ]);
  return table(["teacher.cache", "bytes a token", "on disk"], rows);
}

function readingLines(
  { train }: Recipe,
  { tokensPerMicroBatch, train: data, trainSets = [] }: Estimate,
): string[] {
  const perStep = tokensPerMicroBatch * train.accumulation;
  const all = train.steps * perStep;
  const times = (share: number, tokens: number) => `${(share * all / tokens).toFixed(1)} times`;
  const steps = `${train.steps} steps of ${count(perStep)} tokens; the training data has ${
    count(data.tokens)
  } tokens`;
  if (trainSets.length === 0) return [`${steps}, so it is read ${times(1, data.tokens)}.`];
  return [
    `${steps}.`,
    ...trainSets.map(({ name, share, tokens }) =>
      share > 0
        ? `  ${name}: ${percent(share)} of them, so its ${count(tokens)} tokens are read ${
          times(share, tokens)
        }`
        : `  ${name}: nothing is drawn of it`
    ),
  ];
}
