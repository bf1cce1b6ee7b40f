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

async function runTests(args: readonly string[]): Promise<number> {
  const adapter = await ensureAdapter((message) => console.log(message));
  console.log(`Testing on ${adapter.name}`);
  const paths = args.some((a) => !a.startsWith("-")) ? [] : ["tests/"];
  const child = new Deno.Command(Deno.execPath(), {
    args: ["test", "--allow-all", ...args, ...paths],
    // Vulkan drivers complain, once for each device, where there is no runtime folder.
    env: Deno.env.get("XDG_RUNTIME_DIR")
      ? {}
      : { XDG_RUNTIME_DIR: await Deno.makeTempDir({ prefix: "limbeck-" }) },
    stdout: "piped",
  }).spawn();
  let tail = "";
  for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
    await Deno.stdout.write(new TextEncoder().encode(chunk));
    tail = (tail + chunk).slice(-20_000);
  }
  const { code } = await child.status;
  const summary = readSummary(tail) ?? { passed: 0, failed: 1, skipped: 0 };
  console.log(`${summary.passed} passed, ${summary.failed} failed, ${summary.skipped} skipped`);
  return code;
}

if (import.meta.main) Deno.exit(await runTests(Deno.args));
