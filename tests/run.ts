/**
 * Runs the tests: makes sure there is a GPU adapter first (software Vulkan is installed where that is possible), and ends with one
 * plain line, `N passed, N failed, N skipped`.
 *
 * Arguments are handed to `deno test`: `deno task test tests/text`, `deno task test --filter attention`.
 *
 * @module
 */
// @ts-types="../types/std_colors.d.ts"
import { stripAnsiCode } from "@std/fmt/colors";
import { ensureAdapter } from "../src/cli/setup/setup.ts";
import { driverOptions, groupModule, groupsOf } from "./groups.ts";

/** What `deno test` says at its end. */
const SUMMARY =
  /\|\s*(\d+) passed(?: \(\d+ steps?\))?\s*\|\s*(\d+) failed(?: \(\d+ steps?\))?(?:\s*\|\s*(\d+) ignored)?/;

/** The counts in the output of `deno test`, colours and all; undefined if it broke off before its last line. */
export function readSummary(output: string): { passed: number; failed: number; skipped: number } | undefined {
  const match = stripAnsiCode(output).split("\n").reverse().map((line) => SUMMARY.exec(line)).find((m) =>
    m !== null
  );
  if (!match) return undefined;
  return { passed: Number(match[1]), failed: Number(match[2]), skipped: Number(match[3] ?? 0) };
}

/** Files that kill processes at moments that matter: each runs alone, when all others are done, as what runs beside it would decide what it sees. */
const ALONE = ["tests/runs/supervisor_test.ts", "tests/server/proofs_test.ts"];

/**
 * Files with a browser, those that share one in one process: never two browsers at once. They come first, as they wait more than they
 * work.
 */
const IN_A_BROWSER = [
  ["charts", "form", "shapes", "task_form", "teachers"].map((part) => `tests/server/page_${part}_test.ts`)
    .concat("tests/server/page_test.ts"),
  ["tests/server/tab_test.ts"],
];

/** Files that take longest: they begin first, so that no core is left without work while the last of them ends. */
const LONGEST = [
  "tests/registry/check_test.ts",
  "tests/kernels/translation_test.ts",
  "tests/examples/plugins_test.ts",
  "tests/losses/builtins_test.ts",
  "tests/runs/inspection_test.ts",
  "tests/runs/child_test.ts",
  "tests/tensor/attention_test.ts",
  "tests/goldens/stories15m_test.ts",
  "tests/examples/recipes_test.ts",
  "tests/goldens/families_test.ts",
];

/** The most files at once: each has devices of its own, and the memory that goes with them. */
const MOST_AT_ONCE = 8;

/** Every file of tests. */
function* testFiles(folder = "tests"): Generator<string> {
  for (const { name, isDirectory } of Deno.readDirSync(folder)) {
    const path = `${folder}/${name}`;
    if (isDirectory) yield* testFiles(path);
    else if (name.endsWith("_test.ts")) yield path;
  }
}

/** What came of a process of `deno test`. */
export interface Outcome {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  /** What a person should know beside what was printed. */
  readonly remark?: string;
}

/**
 * Reads how a process of `deno test` ended.
 *
 * A process that a signal ends after it has told that all its tests passed counts as passed, and says so: Deno takes the Vulkan driver
 * down in the thread that ran the tests while its main thread leaves through `exit()`, and Mesa's driver now and then does not survive
 * that (a worker that only asks for an adapter and is terminated right before the end shows it, about once in ten).
 *
 * @param signal what ended the process, if not itself
 */
export function outcome(output: string, code: number, signal: string | null): Outcome {
  const summary = readSummary(output);
  if (!summary) {
    return { passed: 0, failed: 1, skipped: 0, remark: `it ended with ${signal ?? code} on the way` };
  }
  if (code === 0 || summary.failed > 0) return summary;
  if (signal !== null) {
    return { ...summary, remark: `all passed; then ${signal} while the driver was taken down` };
  }
  return { ...summary, failed: 1, remark: `all passed; then it ended with ${code}` };
}

/**
 * Runs `deno test` and returns what came of it.
 *
 * @param heading what is printed above its output
 */
async function denoTest(
  args: readonly string[],
  env: Record<string, string>,
  heading?: string,
): Promise<Outcome> {
  const child = new Deno.Command(Deno.execPath(), {
    // Types are looked at by `deno task check`, once.
    args: ["test", "--allow-all", "--no-check", ...args],
    env,
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  // A file is printed when it has ended: several run at once.
  const pieces: Uint8Array[] = [];
  const collect = async (stream: ReadableStream<Uint8Array>) => {
    for await (const piece of stream) pieces.push(piece);
  };
  const [status] = await Promise.all([child.status, collect(child.stdout), collect(child.stderr)]);
  const output = await new Blob(pieces as Uint8Array<ArrayBuffer>[]).text();
  if (heading !== undefined) console.log(heading);
  console.log(output.trimEnd());
  const result = outcome(output, status.code, status.signal);
  if (result.remark) console.log(`${args.at(-1)}: ${result.remark}`);
  return result;
}

/** All tests, files of one folder in one process, several processes at once. */
async function runAll(args: readonly string[], env: Record<string, string>): Promise<Outcome[]> {
  const files = [...testFiles()].sort();
  // Packages are fetched once, not by the first processes at the same time.
  await new Deno.Command(Deno.execPath(), { args: ["cache", "--quiet", ...files] }).output();
  const others = files.filter((file) => ![...ALONE, ...LONGEST, ...IN_A_BROWSER.flat()].includes(file));
  const waiting = [...LONGEST.map((file) => [file]), ...groupsOf(others)].values();
  const outcomes: Outcome[] = [];
  const modules = await Deno.makeTempDir({ prefix: "limbeck-tests-" });
  const work = async (groups: Iterable<readonly string[]>, more: Record<string, string> = {}) => {
    for (const group of groups) {
      const run = await runnable(group, modules);
      const heading = group.length === 1 ? undefined : `In one process: ${group.join(" ")}`;
      outcomes.push(await denoTest([...args, ...run], { ...env, ...driverOptions(group), ...more }, heading));
    }
  };
  // Mesa's software driver takes all cores for each device otherwise.
  const oneCore = { LP_NUM_THREADS: "1" };
  // One more than there are cores: files with processes of their own wait now and then.
  const lanes = Math.min(navigator.hardwareConcurrency + 1, MOST_AT_ONCE);
  const single = (file: string) => [file];
  try {
    await Promise.all([
      work(IN_A_BROWSER, oneCore).then(() => work(waiting, oneCore)),
      ...Array.from({ length: lanes }, () => work(waiting, oneCore)),
    ]);
    await work(ALONE.map(single));
  } finally {
    await Deno.remove(modules, { recursive: true });
  }
  return outcomes;
}

/** Arguments of `deno test` for files that share a process: the file, or a module that imports them all. */
async function runnable(files: readonly string[], folder: string): Promise<string[]> {
  const [first, ...more] = files;
  if (more.length === 0) return [first!];
  const name = first!.replaceAll("/", "_").replace(/_test\.ts$/, `_and_${more.length}_more_test.ts`);
  await Deno.writeTextFile(`${folder}/${name}`, groupModule(files, new URL("../", import.meta.url)));
  return ["--config=deno.json", `${folder}/${name}`];
}

async function runTests(args: readonly string[]): Promise<number> {
  const adapter = await ensureAdapter((message) => console.log(message));
  console.log(`Testing on ${adapter.name}`);
  // Vulkan drivers complain, once for each device, where there is no runtime folder.
  const runtime = Deno.env.get("XDG_RUNTIME_DIR") ?? await Deno.makeTempDir({ prefix: "limbeck-" });
  const env = { XDG_RUNTIME_DIR: runtime };
  const chosen = args.some((a) => !a.startsWith("-"));
  const outcomes = chosen ? [await denoTest(args, env)] : await runAll(args, env);
  const sum = (part: "passed" | "failed" | "skipped") => outcomes.reduce((total, o) => total + o[part], 0);
  console.log(`${sum("passed")} passed, ${sum("failed")} failed, ${sum("skipped")} skipped`);
  return sum("failed") > 0 ? 1 : 0;
}

if (import.meta.main) Deno.exit(await runTests(Deno.args));
