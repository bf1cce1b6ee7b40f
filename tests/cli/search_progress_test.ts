// @ts-types="../../types/std_assert.d.ts"
import { assertEquals } from "@std/assert";
import { Output } from "../../src/cli/terminal/output.ts";
import { SearchProgressLine } from "../../src/cli/terminal/search_progress.ts";
import { fakeTerminal } from "./fake_terminal.ts";

/** What a search of eleven subsets shows, of which the first two were remembered; each of the others takes two seconds. */
function shown(interactive: boolean, json = false): { out: string; err: string } {
  const terminal = { ...fakeTerminal(), interactive };
  let [clock, out, err] = [0, "", ""];
  terminal.stdout = (text: string) => void (out += text);
  terminal.stderr = (text: string) => void (err += text);
  const line = new SearchProgressLine(new Output(terminal, json), () => clock);
  for (let done = 1; done <= 6; done++) {
    const reused = done <= 2;
    // Opening the model takes a while, which says nothing of the evaluations.
    clock += reused ? 30_000 : 2000;
    line.show({ done, total: 11, kept: [0, 2], values: { loss: 1.5 }, reused, tokens: 9 });
  }
  line.end();
  return { out, err };
}

Deno.test("a search says how far it is and how long it will take", () => {
  const { out } = shown(true);
  const lines = out.split("\r\x1b[2K");
  assertEquals(lines.at(-1), "");
  assertEquals(lines[1], "1 of 11 subsets  kept 0,2  loss 1.500");
  assertEquals(lines[3], "3 of 11 subsets  kept 0,2  loss 1.500  at most 0:16 left");
  assertEquals(lines[6], "6 of 11 subsets  kept 0,2  loss 1.500  at most 0:10 left");
});

Deno.test("where no line can be redrawn, a search says so now and then, beside its result", () => {
  const { out, err } = shown(false);
  assertEquals(out, "");
  assertEquals(err.trim().split("\n").map((line) => line.slice(0, 7)), ["1 of 11", "2 of 11", "5 of 11"]);
  assertEquals(shown(true, true), { out: "", err: "" });
});

Deno.test("looking at inputs says on how many tokens of how many", () => {
  const terminal = { ...fakeTerminal(), interactive: true };
  let out = "";
  terminal.stdout = (text: string) => void (out += text);
  const line = new SearchProgressLine(new Output(terminal, false));
  line.tokens(1024, 3200);
  line.end();
  assertEquals(out, "\r\x1b[2K1.02 k of 3.2 k tokens\r\x1b[2K");
});
