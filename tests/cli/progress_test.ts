// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
// @ts-types="../../types/std_colors.d.ts"
import { stripAnsiCode } from "@std/fmt/colors";
import type { MetricsEvent, PlanEvent, RunEvent, RunEventBody } from "../../src/distill/run/events.ts";
import { Output } from "../../src/cli/terminal/output.ts";
import { Progress } from "../../src/cli/terminal/progress.ts";
import { bytes, count, duration, number3, percent, short } from "../../src/base/units.ts";
import { fakeOutput, fakeTerminal } from "./fake_terminal.ts";

let seq = 0;
const stamped = (body: RunEventBody): RunEvent => ({ seq: ++seq, time: "", attempt: 1, ...body });

const metrics = (step: number): MetricsEvent => ({
  type: "metrics",
  step,
  loss: 2.41349,
  losses: { "cross-entropy": 3.6, "forward-kl": 1.2 },
  learningRate: 1e-3,
  gradientNorm: 1,
  supervisedTokens: 256,
  tokensPerSecond: 213.4,
  secondsPerStep: 1.5,
});

const plan: PlanEvent = {
  type: "plan",
  adapterName: "llvmpipe",
  software: true,
  bytes: { "teacher weights": 1024, activations: 3 * 2 ** 20 },
  totalBytes: 3 * 2 ** 20 + 1024,
  parameters: { teacher: 15_190_000, student: 1e7, trainable: 1e6 },
  data: { trainSamples: 10, heldOutSamples: 2, trainTokens: 5000, supervisedTokens: 4000 },
  steps: 60,
};

Deno.test("Progress names the sets of lists, and shows the loss on each held-out set", () => {
  const { out, terminal } = fakeOutput();
  const progress = new Progress(out, () => 0);
  const sets = [{ name: "chat", weight: 3, samples: 7, tokens: 4000, supervisedTokens: 3000 }];
  const heldOutSets = [{ name: "seen", samples: 2, tokens: 90, supervisedTokens: 80 }];
  progress.show(stamped({ ...plan, data: { ...plan.data, sets, heldOutSets } }));
  const found = (loss: number | null) => ({ loss, losses: {}, tokens: 10 });
  const all = { seen: found(2.5), maths: found(1.25), code: found(null) };
  progress.show(stamped({ type: "evaluation", step: 5, model: "student", ...found(2.5), sets: all }));
  progress.end();
  for (const text of ["chat: weight 3, 7 samples, 4 k tokens", "seen: 2 held out"]) {
    assertStringIncludes(terminal.out, text);
  }
  assertStringIncludes(terminal.out, "held-out loss 2.500, maths 1.250, code -  student after step 5");
});

Deno.test("Progress prints plain lines now and then where a line cannot be redrawn", () => {
  const { out, terminal } = fakeOutput();
  let now = 0;
  const progress = new Progress(out, () => now);
  progress.show(stamped(plan));
  for (let step = 1; step <= 60; step++) {
    now += 1000;
    progress.show(stamped(metrics(step)));
  }
  progress.end();
  const steps = terminal.out.split("\n").filter((line) => line.startsWith("step "));
  assertEquals(steps.length, 13);
  assertEquals(
    steps[0],
    "step 1/60  loss 2.413  cross-entropy 3.600  forward-kl 1.200  213 tokens/s  1:29 left",
  );
  assert(steps.at(-1)!.startsWith("step 60/60"));
  for (
    const text of ["teacher 15.2 M", "teacher weights", "3 MiB", "total", "a CPU does the work"]
  ) {
    assertStringIncludes(terminal.out, text);
  }
  assert(!terminal.out.includes("\x1b"));
});

Deno.test("Progress shows a plan that an earlier version kept, with a field that there is no more", () => {
  const shown = [plan, { ...plan, estimatedSeconds: null }].map((event) => {
    const { out, terminal } = fakeOutput();
    new Progress(out).show(stamped(event));
    return terminal.out;
  });
  assertEquals(shown[1], shown[0]);
});

Deno.test("Progress redraws a bar that fits the terminal, and puts events above it", () => {
  for (const columns of [200, 80, 50, 20, 5]) {
    const { out, terminal } = fakeOutput(true, columns);
    const progress = new Progress(out);
    progress.show(stamped(plan));
    terminal.out = "";
    progress.show(stamped(metrics(30)));
    const bar = terminal.out;
    assert(!bar.includes("\n"));
    // Colours, the command that clears the line, and the return to its beginning take no room.
    const shown = stripAnsiCode(bar).replaceAll("\x1b[K", "").replaceAll("\r", "");
    assert(shown.length < columns, `${shown.length} of ${columns}`);
    assertStringIncludes("30/60", shown.match(/\d+\/?\d*/)![0]);
    if (columns >= 80) {
      for (
        const text of ["loss 2.413", "forward-kl 1.200", "213 tokens/s", "0:45 left"]
      ) assertStringIncludes(shown, text);
    }
    terminal.out = "";
    progress.show(stamped({ type: "checkpoint", step: 30, path: "checkpoints/step-000030", best: true }));
    assert(terminal.out.startsWith("\r\x1b[2K"));
    assert(terminal.out.endsWith(bar));
    terminal.out = "";
    progress.end();
    assertEquals(terminal.out, "\r\x1b[2K");
  }
});

Deno.test("Progress prints each event as a line of JSON for machines", () => {
  const terminal = fakeTerminal(true);
  const progress = new Progress(new Output(terminal, true));
  const events = [plan, metrics(1), { type: "stage", stage: "load", message: "loading" } as const].map(
    stamped,
  );
  events.forEach((event) => progress.show(event));
  progress.end();
  assertEquals(terminal.out.trim().split("\n").map((line) => JSON.parse(line)), events);
});

Deno.test("units are written as people read them", () => {
  assertEquals([0, 512, 1024, 1.5 * 2 ** 30].map(bytes), ["0 B", "512 B", "1 KiB", "1.5 GiB"]);
  assertEquals([0, 7, 760, 11_100].map(duration), ["0:00", "0:07", "12:40", "3:05:00"]);
  assertEquals([1, 999, 15_190_000, 2e9].map(count), ["1", "999", "15.2 M", "2 G"]);
  assertEquals([null, NaN, 1].map(number3), ["-", "-", "1.000"]);
  assertEquals([213.4, 1.2345, 0, null].map(short), ["213", "1.23", "0", "-"]);
  assertEquals([0.5, 1 / 3, 1, 0.00123].map(percent), ["50 %", "33.3 %", "100 %", "0.123 %"]);
});
