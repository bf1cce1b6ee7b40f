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

/**
 * Files that are run one after another, when all others are done: they watch the clock, or kill processes at moments that matter, so
 * what runs beside them would decide what they see.
 */
const SERIAL = [
  "tests/runs/supervisor_test.ts",
  "tests/server/page_charts_test.ts",
  "tests/server/page_form_test.ts",
  "tests/server/page_test.ts",
  "tests/server/proofs_test.ts",
];

/** The most files at once: each has devices of its own, and the memory that goes with them. */
const MOST_AT_ONCE = 8;

/** The environment of tests. */
async function environment(): Promise<Record<string, string>> {
  // Vulkan drivers complain, once for each device, where there is no runtime folder.
  const runtime = Deno.env.get("XDG_RUNTIME_DIR") ?? await Deno.makeTempDir({ prefix: "limbeck-" });
  return { XDG_RUNTIME_DIR: runtime };
}

/** What came of `deno test`. */
interface Outcome {
  readonly code: number;
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** Runs `deno test`; what it prints is shown when it has ended, or while it runs. */
async function denoTest(
  args: readonly string[],
  env: Record<string, string>,
  show: "at the end" | "at once",
): Promise<Outcome> {
  const child = new Deno.Command(Deno.execPath(), {
    // Types are looked at by `deno task check`, once.
    args: ["test", "--allow-all", "--no-check", ...args],
    env,
    stdout: "piped",
    stderr: show === "at once" ? "inherit" : "piped",
  }).spawn();
  const errors = show === "at once" ? undefined : new Response(child.stderr).text();
  let printed = "";
  for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
    if (show === "at once") await Deno.stdout.write(new TextEncoder().encode(chunk));
    printed += chunk;
  }
  const { code } = await child.status;
  if (show === "at the end") await Deno.stdout.write(new TextEncoder().encode(printed + await errors));
  return { code, ...readSummary(printed) ?? { passed: 0, failed: 1, skipped: 0 } };
}

/** The files of tests below a folder, by their paths. */
async function testFiles(folder: string): Promise<string[]> {
  const found: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    if (isDirectory) found.push(...await testFiles(`${folder}/${name}`));
    else if (name.endsWith("_test.ts")) found.push(`${folder}/${name}`);
  }
  return found.sort();
}

/**
 * All tests: several files at once, each in a process of its own, then those that want the machine for themselves. Processes rather than
 * `--parallel`, whose threads wait for each other where the driver compiles, and of which one that crashes takes all along.
 */
async function runAll(args: readonly string[]): Promise<Outcome[]> {
  const env = await environment();
  const files = (await testFiles("tests")).filter((file) => !SERIAL.includes(file));
  // Mesa's software driver takes all cores for each device otherwise.
  const alone = { ...env, LP_NUM_THREADS: "1" };
  const outcomes: Outcome[] = [];
  // One more than there are cores: some files wait, for a process or a clock.
  const jobs = Math.min(navigator.hardwareConcurrency + 1, MOST_AT_ONCE);
  await Promise.all(Array.from({ length: jobs }, async () => {
    for (let file = files.shift(); file !== undefined; file = files.shift()) {
      outcomes.push(await denoTest([...args, file], alone, "at the end"));
    }
  }));
  return [...outcomes, await denoTest([...args, ...SERIAL], env, "at once")];
}

async function runTests(args: readonly string[]): Promise<number> {
  const adapter = await ensureAdapter((message) => console.log(message));
  console.log(`Testing on ${adapter.name}`);
  const chosen = args.some((a) => !a.startsWith("-"));
  const outcomes = chosen ? [await denoTest(args, await environment(), "at once")] : await runAll(args);
  const sum = (part: "passed" | "failed" | "skipped") =>
    outcomes.reduce((total, outcome) => total + outcome[part], 0);
  console.log(`${sum("passed")} passed, ${sum("failed")} failed, ${sum("skipped")} skipped`);
  return outcomes.find(({ code }) => code !== 0)?.code ?? 0;
}

if (import.meta.main) Deno.exit(await runTests(Deno.args));
