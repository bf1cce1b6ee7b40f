// @ts-types="../../types/std_assert.d.ts"
import { assertEquals } from "@std/assert";
import { shownPath } from "../../src/cli/terminal/shown_path.ts";

Deno.test("shownPath() is relative within the working folder, and absolute one step outside of it", () => {
  assertEquals(shownPath("/home/ada/data/runs/a", "/home/ada/data"), "runs/a");
  assertEquals(shownPath("/home/ada/data", "/home/ada/data"), ".");
  assertEquals(shownPath("/home/ada/runs", "/home/ada/data"), "/home/ada/runs");
  assertEquals(shownPath("/tmp/runs", "/home/ada/data"), "/tmp/runs");
});
