/**
 * Runs every program on every case, one after another, each in a process of its own and with an empty shader cache, and prints
 * what they took and whether their losses agree.
 *
 * Run with `deno run -A bench/peers/compare.ts [--json] [--python PYTHON] [case ...]`, on an otherwise idle machine. PyTorch with PEFT takes
 * part where an interpreter that has them is named, or LIMBECK_PEERS_PYTHON names one. Fails when a program fails or when losses differ.
 *
 * @module
 */
// @ts-types="../../types/std_parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
import { CASE_NAMES, type CaseName, isCaseName } from "./case.ts";
import type { Measurement } from "./measure.ts";

/** This project's own program takes the case as its argument and prints the same line of JSON as the others. */
const OWN = { name: "limbeck", script: new URL("../step.ts", import.meta.url), arguments: [] as string[] };
const RUN = new URL("./run.ts", import.meta.url);
const PYTORCH = new URL("./pytorch/run.ts", import.meta.url);
const LIBRARIES = ["jax-js", "tensorflow-js"];

/** Largest difference of two programs' losses, before training and after each of three steps. */
const LOSS_TOLERANCE = 1e-3;
/** The same to PyTorch, whose products and sums are as exact as ours. */
const PYTORCH_TOLERANCE = 1e-4;

interface Program {
  name: string;
  script: URL;
  arguments: string[];
}

/** @param python An interpreter with PyTorch and PEFT */
function programs(python: string | undefined): Program[] {
  const found: Program[] = LIBRARIES.map((name) => ({ name, script: RUN, arguments: [name] }));
  if (python) found.push({ name: "pytorch", script: PYTORCH, arguments: [python] });
  try {
    Deno.statSync(OWN.script);
    found.push(OWN);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    console.error("skip: limbeck: there is no bench/step.ts");
  }
  return found;
}

/** Runs one program; undefined when it skipped the case, having said why. */
async function run(
  { name, script, arguments: args }: Program,
  caseName: string,
): Promise<Measurement | undefined> {
  const command = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-lock", "-A", script.href, ...args, caseName],
    // Mesa keeps compiled shaders on disk; without its cache the first step is that of a new machine.
    env: { MESA_SHADER_CACHE_DISABLE: "true" },
    stdout: "piped",
    stderr: "inherit",
  });
  const { success, code, stdout } = await command.output();
  if (!success) throw new Error(`${name} ended with code ${code} on ${caseName}`);
  const line = new TextDecoder().decode(stdout).split("\n").findLast((line) => line.startsWith("{"));
  return line === undefined ? undefined : JSON.parse(line);
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}

/** Largest difference between the losses of two programs; NaN counts as infinite. */
function lossDifference(a: Measurement, b: Measurement): number {
  if (a.losses.length !== b.losses.length) return Infinity;
  const differences = a.losses.map((loss, i) => Math.abs(loss - b.losses[i]));
  return differences.some(Number.isNaN) ? Infinity : Math.max(...differences);
}

function row(cells: readonly string[]): string {
  const widths = [16, 12, 12, 12, 8, 12, 8];
  return cells.map((cell, i) => i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i] ?? 0)).join("  ");
}

/**
 * The table of one case. A ratio is a program's figure over that of the last one, which is this project's own where it is there:
 * 6.0 means six times as long, or as much.
 */
export function table(results: readonly Measurement[]): string {
  const reference = results[results.length - 1];
  const ratio = (value: number, base: number) => (value / base).toFixed(1);
  const lines = [row(["", "first step", "median step", "fastest", "ratio", "peak memory", "ratio"])];
  for (const result of results) {
    const step = median(result.stepMs);
    lines.push(row([
      result.peer,
      `${(result.firstStepMs / 1e3).toFixed(1)} s`,
      `${(step / 1e3).toFixed(2)} s`,
      `${(Math.min(...result.stepMs) / 1e3).toFixed(2)} s`,
      ratio(step, median(reference.stepMs)),
      `${(result.peakRssBytes / 1e6).toFixed(0)} MB`,
      ratio(result.peakRssBytes, reference.peakRssBytes),
    ]));
  }
  lines.push("", "losses before, and after 1, 2, 3 steps:");
  for (const { peer, losses } of results) {
    lines.push(row([peer, ...losses.map((loss) => loss.toFixed(5))]));
  }
  return lines.join("\n");
}

async function compare(
  caseName: CaseName,
  { json, python }: { json: boolean; python: string | undefined },
): Promise<boolean> {
  const results: Measurement[] = [];
  for (const program of programs(python)) {
    const result = await run(program, caseName);
    if (!result) continue;
    results.push(result);
    if (json) console.log(JSON.stringify(result));
  }
  if (results.length === 0) return true;
  let agree = true;
  const reference = results[results.length - 1];
  if (!json) {
    console.log(`\n${caseName} on ${reference.adapterName}; ratios to ${reference.peer}\n`);
    console.log(table(results));
  }
  for (const other of results.slice(0, -1)) {
    const difference = lossDifference(reference, other);
    const most = other.peer === "pytorch" ? PYTORCH_TOLERANCE : LOSS_TOLERANCE;
    if (difference <= most) continue;
    agree = false;
    console.error(
      `${other.peer} and ${reference.peer} differ in a loss by ${difference}; at most ${most} is right`,
    );
  }
  for (const { peer, adapterName } of results) {
    if (adapterName === reference.adapterName) continue;
    // PyTorch needs no WebGPU, so it has the same cores, and tells which.
    if (peer === "pytorch") console.error(`\n${peer} ran on ${adapterName}`);
    else {
      agree = false;
      console.error(`${peer} ran on ${adapterName}, not on ${reference.adapterName}`);
    }
  }
  return agree;
}

if (import.meta.main) {
  const flags = parseArgs(Deno.args, { boolean: ["json"], string: ["python", "_"] });
  const json = flags.json === true;
  const python = typeof flags.python === "string" ? flags.python : Deno.env.get("LIMBECK_PEERS_PYTHON");
  const names = flags._.map(String);
  const unknown = names.filter((name) => !isCaseName(name));
  if (unknown.length > 0) {
    console.error(`unknown case ${unknown.join(", ")}; the cases are ${CASE_NAMES.join(", ")}`);
    Deno.exit(2);
  }
  let agree = true;
  for (const name of names.length > 0 ? names.filter(isCaseName) : CASE_NAMES) {
    if (!await compare(name, { json, python })) agree = false;
  }
  Deno.exit(agree ? 0 : 1);
}
