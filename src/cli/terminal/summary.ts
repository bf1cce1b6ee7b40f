/**
 * What a run came to, as it is printed at its end and by `limbeck runs show`.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
// @ts-types="../../../types/std_colors.d.ts"
import { bold, cyan, dim } from "@std/fmt/colors";
import type { RunEvent } from "../../distill/run/events.ts";
import type { RunResult } from "../../distill/export/exports.ts";
import { evaluationLines } from "./evaluation_lines.ts";
import { table } from "./table.ts";
import { drawnRows } from "../../runs/report/charts/drawn_shares.ts";
import type { DrawnShare } from "../../text/batch_stream.ts";
import { chosenSamples } from "../../runs/report/chosen_samples.ts";
import { bytes, count, duration, number3 } from "../../base/units.ts";

/** Longest sample text shown, in characters. */
const LONGEST_SAMPLE = 300;

/** Lines that sum a finished run up. */
export function summaryLines(folder: string, result: RunResult, events: readonly RunEvent[]): string[] {
  const { heldOut, paths, peakBytes } = result;
  // A task trained nothing.
  const lines = result.findings ? [dim(`Done in ${duration(result.seconds)}`)] : [
    bold("Held-out loss") + dim(` (nats a token, ${heldOut.tokens} tokens)`),
    `  teacher         ${number3(heldOut.teacher)}`,
    `  student before  ${number3(heldOut.before)}`,
    `  student after   ${bold(number3(heldOut.after))}${gapText(heldOut.gapClosed)}`,
    ...bitsLines(result),
    ...setLines(result),
    ...drawnLines(result.drawn ?? []),
    ...(result.evaluation ? ["", ...evaluationLines(result.evaluation)] : []),
    ...sampleLines(events),
    "",
    dim(
      `${result.steps} steps in ${duration(result.seconds)}; peak memory on the GPU ${
        bytes(peakBytes.allocated)
      }`,
    ),
  ];
  const named: [string, string | undefined][] = [
    ["adapter", paths.adapter],
    ["teacher's", paths.teacherAdapter],
    ["base", paths.base],
    [result.findings ? "model" : "merged model", paths.merged],
    ["shape", paths.shape],
    ["report", paths.report],
  ];
  if (named.some(([, path]) => path)) lines.push("", bold("What there is"));
  for (const [name, path] of named) if (path) lines.push(`  ${name.padEnd(14)}${join(folder, path)}`);
  if (paths.adapter) {
    lines.push(
      "",
      ...(result.adapterForm === "limbeck" ? ownLines(folder, paths) : peftLines(folder, paths)),
    );
  }
  return lines;
}

/** Of models with tokenizers of their own, what compares them. */
function bitsLines({ bitsPerByte: bits }: RunResult): string[] {
  if (!bits) return [];
  return [
    bold("Held-out bits a byte") + dim(" (which compare across tokenizers; so does the gap)"),
    `  teacher         ${number3(bits.teacher)}`,
    `  student before  ${number3(bits.before)}`,
    `  student after   ${bold(number3(bits.after))}`,
  ];
}

/** Each of several held-out sets. The first is what the lines above say. */
function setLines({ heldOutSets = [] }: RunResult): string[] {
  if (heldOutSets.length === 0) return [];
  const rows = heldOutSets.map(({ name, teacher, before, after, tokens }) => [
    `  ${name}`,
    ...[teacher, before, after].map(number3),
    count(tokens),
  ]);
  return ["", ...table(["  held-out set", "teacher", "before", "after", "tokens"], rows)];
}

/** What was drawn of each training set. */
function drawnLines(drawn: readonly DrawnShare[]): string[] {
  if (drawn.length < 2) return [];
  const rows = drawnRows(drawn).map(({ name, ...cells }) => [`  ${name}`, ...Object.values(cells)]);
  return ["", ...table(["  drawn of", "rows", "tokens", "of them learnt"], rows)];
}

/** Share of the gap that training closed, in words; empty where there is none. */
function gapText(gap: number | null): string {
  return gap === null ? "" : `  ${number3(gap)} of the gap to the teacher closed`;
}

function sampleLines(events: readonly RunEvent[]): string[] {
  const chosen = chosenSamples(events);
  if (chosen.length === 0) return [];
  return [
    "",
    bold("A sample from each") + dim(`, continuing ${JSON.stringify(shorten(chosen[0].sample.prompt))}`),
    ...chosen.flatMap(({ name, sample }) => [`  ${cyan(name)}`, `    ${shorten(sample.text)}`]),
  ];
}

function shorten(text: string): string {
  const line = visible(text.replace(/\s+/g, " ").trim());
  return line.length > LONGEST_SAMPLE ? `${line.slice(0, LONGEST_SAMPLE)} ...` : line;
}

/** A model may write anything, also what a terminal would obey. */
export function visible(text: string): string {
  return text.replace(/(?![\n\t])\p{Cc}/gu, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`);
}

/** PEFT does not know the adapter. */
function ownLines(folder: string, paths: RunResult["paths"]): string[] {
  const note = "The adapter is written as its own values: PEFT has no layout for it.";
  if (!paths.merged) return [note];
  const merged = JSON.stringify(join(folder, paths.merged));
  return [note, "", bold("Load the merged model"), `  AutoModelForCausalLM.from_pretrained(${merged})`];
}

function peftLines(folder: string, paths: RunResult["paths"]): string[] {
  const adapter = JSON.stringify(join(folder, paths.adapter!));
  return [
    bold("Load the adapter with PEFT"),
    "  from peft import AutoPeftModelForCausalLM",
    `  model = AutoPeftModelForCausalLM.from_pretrained(${adapter})`,
    ...(paths.merged
      ? [
        "",
        dim(
          `or the merged model: AutoModelForCausalLM.from_pretrained(${
            JSON.stringify(join(folder, paths.merged))
          })`,
        ),
      ]
      : []),
  ];
}
