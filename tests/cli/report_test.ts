// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import type { RunEvent, RunEventBody } from "../../src/distill/run/events.ts";
import { parseRecipe } from "../../src/distill/recipe/parse.ts";
import { chart } from "../../src/runs/report/charts/chart.ts";
import { reportHtml } from "../../src/runs/report/report.ts";
import { summaryLines, visible } from "../../src/cli/terminal/summary.ts";

const EVIL = `<script>alert("1")</script>&'`;

const bodies: RunEventBody[] = [
  { type: "state", state: "running" },
  { type: "evaluation", step: 0, model: "teacher", loss: 1.15, losses: {}, tokens: 10 },
  { type: "evaluation", step: 0, model: "student", loss: 3.21, losses: {}, tokens: 10 },
  { type: "sample", step: 0, model: "teacher", prompt: EVIL, text: EVIL },
  { type: "sample", step: 0, model: "student", prompt: EVIL, text: "worse" },
  ...[1, 2, 3, 4].map((step): RunEventBody => ({
    type: "metrics",
    step,
    loss: step === 3 ? null : 3 / step,
    losses: { "cross-entropy": 3 / step, [EVIL]: 1 },
    learningRate: 1e-3,
    gradientNorm: 1,
    supervisedTokens: 1,
    tokensPerSecond: 1,
    secondsPerStep: 1,
  })),
  { type: "warning", code: "w", message: EVIL },
  { type: "sample", step: 4, model: "student", prompt: EVIL, text: "better" },
  {
    type: "result",
    result: {
      status: "succeeded",
      steps: 4,
      heldOut: { teacher: 1.15, before: 3.21, after: 2.37, gapClosed: 0.408, tokens: 10 },
      paths: { adapter: "adapter", merged: "merged" },
      peakBytes: { planned: 2 ** 20, allocated: 2 ** 20 },
      seconds: 90,
    },
  },
  { type: "state", state: "succeeded" },
];
const events: RunEvent[] = bodies.map((body, i) => ({ seq: i + 1, time: "", attempt: 1, ...body }));

function report(shown: RunEvent[], model = EVIL, train = "t"): string {
  const recipe = parseRecipe({
    teacher: { model },
    student: { model: "teacher" },
    data: { train },
  });
  const manifest = {
    id: "20260724-153012-k7wq",
    createdAt: "2026-07-24T15:30:12Z",
    limbeck: "0.1.0",
    deno: "2",
    recipeHash: "",
    plugins: [],
  };
  return reportHtml({ manifest, recipe, events: shown });
}

Deno.test("reportHtml() shows results, curves and samples, escaped and without anything from elsewhere", () => {
  const html = report(events);
  for (
    const text of [
      "1.150",
      "3.210",
      "2.370",
      "0.408 of the gap",
      "better",
      "Training loss",
      "Held-out loss",
      "1:30",
    ]
  ) {
    assertStringIncludes(html, text);
  }
  assert(!html.includes("<script"), "escaped");
  assertStringIncludes(html, "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#39;");
  assert(!/\b(src|href)=|https?:|url\(|@import/i.test(html.replace(/arxiv/gi, "")), "self-contained");
  assertStringIncludes(html, "prefers-color-scheme: dark");
  assert(!/NaN|Infinity|undefined/.test(html));
});

Deno.test("reportHtml() tells names and no folders", () => {
  const message = "cannot read '/srv/models/teacher/config.json': it is gone";
  const told: RunEventBody = { type: "warning", code: "w", message };
  const html = report(
    [{ seq: 1, time: "", attempt: 1, ...told }],
    "/srv/models/teacher",
    "/data/sets/train.jsonl",
  );
  assert(!/srv|sets/.test(html));
  assertStringIncludes(html, "&quot;model&quot;: &quot;teacher&quot;");
  assertStringIncludes(html, "&quot;train&quot;: &quot;train.jsonl&quot;");
  assertStringIncludes(html, "cannot read &#39;config.json&#39;: it is gone");
});

Deno.test("reportHtml() does with a run that has hardly begun", () => {
  assertMatch(report([]), /queued/);
  assertMatch(report(events.slice(0, 6)), /running/);
});

Deno.test("chart() leaves a gap where there is no value and thins what has no pixels", () => {
  const path = (svg: string) => svg.match(/<path[^>]* d="([^"]*)"/)![1];
  const gap = path(chart("t", [{ name: "a", points: [[1, 1], [2, 2], [3, null], [4, 4], [5, 5]] }]));
  assertEquals([gap.match(/M/g)?.length, gap.match(/L/g)?.length], [2, 2]);
  const many = Array.from({ length: 10_000 }, (_, i) => [i, Math.sin(i)] as const);
  assert(path(chart("t", [{ name: "a", points: many }])).match(/L/g)!.length <= 721);
  assertEquals(chart("t", [{ name: "a", points: [[1, null]] }]), "");
  assert(!/NaN/.test(chart("t", [{ name: "a", points: [[1, 5]] }])));
});

Deno.test("summaryLines() shows before and after, a sample from each, and how to load the adapter", () => {
  const result = events.findLast((event) => event.type === "result")!.result;
  const text = summaryLines("runs/x", result, events).join("\n");
  for (
    const part of [
      "1.150",
      "3.210",
      "2.370",
      "0.408 of the gap",
      "worse",
      "better",
      'from_pretrained("runs/x/adapter")',
      "runs/x/merged",
    ]
  ) {
    assertStringIncludes(text, part);
  }
  assert(!text.includes("  base "));
});

Deno.test("a report and a summary show each held-out set and what was drawn of each training set", () => {
  const { heldOut, ...result } = events.findLast((event) => event.type === "result")!.result;
  const sets = ["seen", EVIL].map((name) => ({ ...heldOut, name, after: name === "seen" ? 2.37 : 1.75 }));
  const drawn = [["chat", 30], ["maths", 10]].map(([name, n]) => ({
    name: name as string,
    samples: n as number,
    tokens: 100 * (n as number),
    supervisedTokens: 5,
  }));
  const found = (loss: number) => ({ loss, losses: {}, tokens: 10 });
  const shown = [
    ...[0, 4].map((step): RunEventBody => ({
      ...{ type: "evaluation", step, model: "student", ...found(3 - step / 4) },
      sets: { seen: found(3 - step / 4), [EVIL]: found(2 - step / 16) },
    })),
    ...bodies.slice(5, 9),
    { type: "result", result: { ...result, heldOut, heldOutSets: sets, drawn } } as RunEventBody,
  ].map((body, i): RunEvent => ({ seq: i + 1, time: "", attempt: 1, ...body }));
  const html = report(shown);
  for (
    const text of [
      "Held-out loss of each set",
      "<th>seen</th><td>1.150</td><td>3.210</td><td>2.370</td><td>10</td>",
      "<td>1.750</td>",
      "<th>chat</th><td>30 (75 %)</td><td>3 k (75 %)</td><td>5 (50 %)</td>",
    ]
  ) assertStringIncludes(html, text);
  assert(!html.includes("<script"), "escaped");
  const text = summaryLines("runs/x", { ...result, heldOut, heldOutSets: sets, drawn }, shown).join("\n");
  assertMatch(
    text,
    /held-out set +teacher +before +after +tokens\S*\n {2}seen +1\.150 +3\.210 +2\.370 +10\n/,
  );
  assertMatch(text, /maths +10 \(25 %\) +1 k \(25 %\) +5 \(50 %\)/);
  for (const plain of [report(events), summaryLines("x", { ...result, heldOut }, events).join("\n")]) {
    assert(!/held-out set|of each set|drawn of/i.test(plain));
  }
});

Deno.test("visible() shows what a terminal would obey", () => {
  assertEquals(visible("a\x1b[31mb\x07\u009b\tc\n"), "a\\x1b[31mb\\x07\\x9b\tc\n");
});
