// @ts-types="../../types/std_assert.d.ts"
import { assertAlmostEquals, assertEquals, assertStringIncludes } from "@std/assert";
import type { RunEvent, RunEventBody } from "../../src/distill/run/events.ts";
import { taughtParts, teachersTable } from "../../src/runs/report/teachers_table.ts";

const log = (bodies: readonly RunEventBody[]): RunEvent[] =>
  bodies.map((body, i) => ({ ...body, seq: i + 1, attempt: 1, time: "" }));

const part = (name: string, samples: number, loss: number | null) =>
  ({ name, samples, tokens: 10 * samples, loss, lossOfAll: 3 }) as const;

/** A step of which `a` taught so many tokens of 10. */
const step = (step: number, tokens: number, a: number | null, b: number | null): RunEventBody => ({
  ...{ type: "metrics", step, loss: 1, losses: {}, learningRate: 0, gradientNorm: 1 },
  ...{ supervisedTokens: 10, tokensPerSecond: 1, secondsPerStep: 1 },
  teachers: [{ name: "a", tokens, loss: a }, { name: "b", tokens: 10 - tokens, loss: b }],
});

Deno.test("what each teacher taught is counted over the steps that hold", () => {
  const steps = Array.from(
    { length: 10 },
    (_, i) => step(i + 1, i === 0 ? 0 : 4, i === 0 ? null : 5 - i / 3, 2 - i / 10),
  );
  const events = log([
    { type: "teachers", combine: "best", teachers: [part("a", 2, 1.5), part("b", 3, null)] },
    ...steps.slice(0, 6),
    step(7, 10, 99, null),
    // That step was lost.
    { type: "rewind", step: 6 },
    ...steps.slice(6),
  ]);
  const [a, b] = taughtParts(events);
  assertEquals([a!.tokens, b!.tokens, a!.share], [36, 64, 0.36]);
  assertEquals([a!.teacherLoss, b!.teacherLoss, a!.teacherLossOfAll], [1.5, null, 3]);
  // The first two steps: it taught nothing in the first.
  assertAlmostEquals(a!.first!, 5 - 1 / 3, 1e-12);
  assertAlmostEquals(b!.first!, (10 * 2 + 6 * 1.9) / 16, 1e-12);
  assertAlmostEquals(b!.last!, (1.2 + 1.1) / 2, 1e-12);
  const html = teachersTable(events);
  assertStringIncludes(html, "<td>36 (36 %)</td>");
  assertEquals(teachersTable(log([steps[0]!])), "");
});

Deno.test("names of teachers are escaped", () => {
  const events = log([{
    type: "teachers",
    combine: "tag",
    teachers: [part("<b>", 1, null), part("x", 1, null)],
  }]);
  const [first] = taughtParts(events);
  assertEquals([first!.tokens, first!.share, first!.first, first!.last], [0, null, null, null]);
  assertStringIncludes(teachersTable(events), "<th>&lt;b&gt;</th>");
});
