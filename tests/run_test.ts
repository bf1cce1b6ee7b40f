import { assertEquals } from "@std/assert";
import { outcome, readSummary } from "./run.ts";

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

Deno.test("outcome() forgives a driver that falls when all tests have passed, and nothing else", () => {
  const passed = "ok | 11 passed | 0 failed | 3 ignored (28s)\n";
  const counts = { passed: 11, failed: 0, skipped: 3 };
  assertEquals(outcome(passed, 0, null), counts);
  assertEquals(outcome(passed, 134, "SIGABRT"), {
    ...counts,
    remark: "all passed; then SIGABRT while the driver was taken down",
  });
  assertEquals(outcome(passed, 1, null), {
    ...counts,
    failed: 1,
    remark: "all passed; then it ended with 1",
  });
  assertEquals(outcome("FAILED | 3 passed | 2 failed (23s)\n", 134, "SIGABRT"), {
    passed: 3,
    failed: 2,
    skipped: 0,
  });
  const crashed = { passed: 0, failed: 1, skipped: 0 };
  assertEquals(outcome("a ... ok\n", 139, "SIGSEGV"), {
    ...crashed,
    remark: "it ended with SIGSEGV on the way",
  });
  assertEquals(outcome("error: Uncaught\n", 1, null), { ...crashed, remark: "it ended with 1 on the way" });
});
