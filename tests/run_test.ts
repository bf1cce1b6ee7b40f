import { assertEquals } from "@std/assert";
import { readSummary } from "./run.ts";

Deno.test("readSummary() reads the last line that counts, in colour or not", () => {
  const coloured =
    "x ... \x1b[32mok\x1b[0m\n\n\x1b[0m\x1b[32mok\x1b[0m | 11 passed (2 steps) | 0 failed | 3 ignored \x1b[38;5;245m(28s)\x1b[0m\n";
  assertEquals(readSummary(coloured), { passed: 11, failed: 0, skipped: 3 });
  assertEquals(readSummary("FAILED | 3 passed | 2 failed (23s)\n\nerror: Test failed\n"), {
    passed: 3,
    failed: 2,
    skipped: 0,
  });
  assertEquals(readSummary("error: Uncaught"), undefined);
});
