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

/** Runs `deno test` and passes on what it prints. */
async function denoTest(
  args: readonly string[],
  env: Record<string, string>,
): Promise<{ code: number; passed: number; failed: number; skipped: number }> {
  const child = new Deno.Command(Deno.execPath(), {
    // Types are looked at by `deno task check`, once.
    args: ["test", "--allow-all", "--no-check", ...args],
    env,
    stdout: "piped",
  }).spawn();
  let tail = "";
  for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
    await Deno.stdout.write(new TextEncoder().encode(chunk));
    tail = (tail + chunk).slice(-20_000);
  }
  const { code } = await child.status;
  return { code, ...readSummary(tail) ?? { passed: 0, failed: 1, skipped: 0 } };
}

/** All tests: several files at once, then those that want the machine for themselves. */
async function runAll(args: readonly string[]) {
  const env = await environment();
  // One more than there are cores: some files wait, for a process or a clock.
  const jobs = Math.min(navigator.hardwareConcurrency + 1, MOST_AT_ONCE);
  const parallel = await denoTest(["--parallel", `--ignore=${SERIAL.join()}`, ...args, "tests/"], {
    ...env,
    DENO_JOBS: String(jobs),
    // Mesa's software driver takes all cores for each device otherwise.
    LP_NUM_THREADS: "1",
  });
  const serial = await denoTest([...args, ...SERIAL], env);
  return [parallel, serial];
}

async function runTests(args: readonly string[]): Promise<number> {
  const adapter = await ensureAdapter((message) => console.log(message));
  console.log(`Testing on ${adapter.name}`);
  const chosen = args.some((a) => !a.startsWith("-"));
  const tiers = chosen ? [await denoTest(args, await environment())] : await runAll(args);
  const sum = (part: "passed" | "failed" | "skipped") => tiers.reduce((total, tier) => total + tier[part], 0);
  console.log(`${sum("passed")} passed, ${sum("failed")} failed, ${sum("skipped")} skipped`);
  return tiers.find(({ code }) => code !== 0)?.code ?? 0;
}

if (import.meta.main) Deno.exit(await runTests(Deno.args));
