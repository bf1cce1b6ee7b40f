/** How a task tells how far it is. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertThrows } from "@std/assert";
import type { ProgressEvent, RunControl, RunEventBody, RunHost } from "../../src/distill/run/events.ts";
import { Work } from "../../src/runs/task/work.ts";

function watched() {
  const told: RunEventBody[] = [];
  const state = { now: 5000, control: "run" as RunControl };
  const host = { emit: (event: RunEventBody) => void told.push(event), control: () => state.control };
  const work = new Work(host as unknown as RunHost, () => state.now);
  const last = () => told.findLast((event): event is ProgressEvent => event.type === "progress")!;
  return { told, state, work, last };
}

Deno.test("work tells each hundredth once, with its pace and the time that is left", () => {
  const { told, state, work, last } = watched();
  using _ended = work;
  work.progress({ done: 0, total: 1000, message: "a" });
  assertEquals(last(), { type: "progress", step: 0, message: "a" });
  state.now += 2000;
  work.progress({ done: 100, total: 1000, bytes: 400, message: "b" });
  assertEquals(last(), {
    ...{ type: "progress", step: 10, message: "b" },
    ...{ bytesPerSecond: 200, secondsLeft: 18 },
  });
  work.progress({ done: 104, total: 1000, message: "c" });
  work.progress({ done: 50, total: 1000, message: "d" });
  assertEquals(told.filter(({ type }) => type === "progress").length, 2);
  work.progress({ done: 1200, total: 1000, message: "e" });
  assertEquals(last().step, 100);
});

Deno.test("what was remembered says nothing of the time that is left", () => {
  const { state, work, last } = watched();
  using _ended = work;
  work.progress({ done: 10, total: 100, remembered: 10, message: "known" });
  assertEquals("secondsLeft" in last(), false);
  state.now += 4000;
  work.progress({ done: 70, total: 100, remembered: 60, tokens: 1000, message: "new" });
  assertEquals([last().secondsLeft, last().tokensPerSecond], [12, 250]);
});

Deno.test("parts of work share its hundredths, and later ones are taken to be as fast", () => {
  const { state, work, last } = watched();
  using _ended = work;
  work.divide({ depth: 3, width: 1 });
  work.progress({ done: 0, total: 10, message: "" }, "depth");
  state.now += 3000;
  work.progress({ done: 5, total: 10, message: "" }, "depth");
  assertEquals([last().step, last().secondsLeft], [37, 5]);
  state.now += 3000;
  work.progress({ done: 10, total: 10, message: "" }, "depth");
  // The clock of a part begins with its first word.
  state.now += 9000;
  work.progress({ done: 10, total: 100, message: "" }, "width");
  assertEquals([last().step, last().secondsLeft], [77, undefined]);
  state.now += 1000;
  work.progress({ done: 50, total: 100, message: "" }, "width");
  assertEquals([last().step, last().secondsLeft], [87, 1.25]);
});

Deno.test("work hears that it is to stop, also where it tells nothing", async () => {
  const { state, work } = watched();
  using _ended = work;
  state.control = "stop";
  await new Promise((resolve) => work.signal.addEventListener("abort", resolve));
  assertThrows(() => work.progress({ done: 1, total: 2, message: "" }));
});
