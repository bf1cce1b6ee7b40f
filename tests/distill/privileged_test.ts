/** Runs whose teacher is told more than the student: measured against logits in f64, resumed, on the student's own texts, and refused. */
// @ts-types="../../types/std_assert.d.ts"
import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { rolloutWindow, withAnswers } from "../../src/distill/generate/rollout_window.ts";
import { prepareRun } from "../../src/distill/inputs/prepare.ts";
import { RecipeError } from "../../src/distill/recipe/parse.ts";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import { setUp } from "../../src/distill/run/set_up.ts";
import { Registry } from "../../src/registry/registry.ts";
import { packBatch } from "../../src/text/packing.ts";
import { privilegedIds } from "../../src/text/privileged.ts";
import { builtins } from "../../plugins/mod.ts";
import { testGpu } from "../tensor/harness.ts";
import { Reader } from "./logits.ts";
import {
  type RecipeChanges,
  type TinyFiles,
  tinyRecipe,
  tinyRows,
  tinySample,
  withTiny,
} from "./tiny_model.ts";
import { heldMetrics, runHere } from "./tiny_run.ts";

/** Two rows in three have a hint. */
function hinted(rows: string): string {
  return rows.trim().split("\n").map((line, i) => {
    const row = JSON.parse(line);
    const { text = row.completion } = row;
    return JSON.stringify(i % 3 === 1 ? row : { ...row, privileged: `it says ${text.slice(0, 12)}: ` }) +
      "\n";
  }).join("");
}

function privilegedRecipe(files: TinyFiles, changes: RecipeChanges = {}) {
  return tinyRecipe(files, {
    objective: [{ loss: "forward-kl" }],
    ...changes,
    teacher: { model: "student", privileged: true, ...changes.teacher },
    student: changes.student ?? { model: files.teacher },
    train: { steps: 6, accumulation: 2, checkpointEvery: 3, ...changes.train },
  });
}

async function withHints(fn: (files: TinyFiles) => Promise<void>): Promise<void> {
  await withTiny(async (files) => {
    await Deno.writeTextFile(files.train, hinted(tinyRows(40, 1)));
    await Deno.writeTextFile(files.heldOut, hinted(tinyRows(6, 2)));
    await fn(files);
  }, { layers: 1 });
}

Deno.test({
  name:
    "a teacher that is told more is measured as its logits in f64 say, taught from, and resumed bit for bit",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: () =>
    withHints(async (files) => {
      // A mean of the student, which moves: its copy reads the longer texts.
      const recipe = privilegedRecipe(files, { teacher: { self: { kind: "mean", decay: 0.75 } } });
      const events: RunEventBody[] = [];
      const result = await runHere(recipe, `${files.folder}/whole`, {}, events);
      assertEquals(result.status, "succeeded");
      assertEquals(result.peakBytes.planned, result.peakBytes.allocated);
      assert(
        events.some((e) =>
          e.type === "stage" && /is told more than the student in \d+ of 46/.test(e.message)
        ),
      );

      const prepared = await prepareRun(recipe);
      try {
        assert(prepared.privileged!.longest > 4);
        const gpu = await testGpu();
        using reader = await Reader.open(gpu, prepared.student, 96);
        const width = prepared.student.config.vocabularySize;
        const logP = async (ids: Int32Array) => {
          const flat = Float64Array.from(await reader.logits(ids));
          return Array.from(ids, (_, t) => logSoftmax(flat.subarray(t * width, (t + 1) * width)));
        };
        let [nats, divergence, count] = [0, 0, 0];
        for (const { ids, supervised, privileged } of prepared.heldOut) {
          const q = await logP(ids);
          const p = privileged ? await logP(privilegedIds(ids, privileged)) : q;
          const more = privileged?.ids.length ?? 0;
          for (let i = 1; i < ids.length; i++) {
            if (!supervised[i]) continue;
            const [target, learner] = [p[i - 1 + more]!, q[i - 1]!];
            count++;
            nats -= target[ids[i]!]!;
            divergence += target.reduce((sum, log, v) => sum + Math.exp(log) * (log - learner[v]!), 0);
          }
        }
        const [teacher, student] = events.flatMap((e) => e.type === "evaluation" && e.step === 0 ? [e] : []);
        assertEquals([teacher!.model, student!.model], ["teacher", "student"]);
        assertAlmostEquals(teacher!.loss!, nats / count, 2e-5);
        assertAlmostEquals(student!.losses["forward-kl"]!, divergence / count, 2e-5);
        assert(divergence / count > 1e-2, "what it is told matters");
      } finally {
        prepared.close();
      }
      const after = events.flatMap((e) => e.type === "evaluation" && e.model === "student" ? [e.losses] : []);
      assert(after.at(-1)!["forward-kl"]! < after[0]!["forward-kl"]!, "learnt");

      const parts: RunEventBody[] = [];
      const folder = `${files.folder}/parts`;
      await runHere(recipe, folder, { control: (step) => step === 4 ? "stop" : "run" }, parts);
      await runHere(recipe, folder, { resume: true }, parts);
      assertEquals(heldMetrics(parts), heldMetrics(events));
      const adapter = (name: string) =>
        Deno.readFile(`${files.folder}/${name}/adapter/adapter_model.safetensors`);
      assertEquals(await adapter("parts"), await adapter("whole"));
    }),
});

Deno.test({
  name: "a student learns from its own texts by itself, told more",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: () =>
    withHints(async (files) => {
      const recipe = privilegedRecipe(files, {
        objective: [{ loss: "reverse-kl" }],
        train: {
          ...{ steps: 3, evaluateEvery: 0, checkpointEvery: 0 },
          onPolicy: { every: 3, ratio: 1, tokens: 10, promptTokens: 4, together: 3 },
        },
      });
      const events: RunEventBody[] = [];
      const result = await runHere(recipe, `${files.folder}/run`, {}, events);
      assertEquals(result.status, "succeeded");
      assert(events.some((e) => e.type === "rollout" && e.answers > 3));
      const steps = events.flatMap((e) => e.type === "metrics" ? [e] : []);
      assert(steps.every(({ losses }) => losses["reverse-kl"]! > 1e-4));
    }),
});

Deno.test("answers keep what the teacher is told, and no more of them are asked for than it has room to read", () => {
  const told = (seed: number, more: number) => ({
    ...tinySample(12, 6, seed),
    privileged: { at: 1, ids: new Int32Array(more).fill(9) },
  });
  const batch = packBatch([told(1, 20), told(2, 30)], 64);
  const window = (privilegedTokens?: number) =>
    rolloutWindow([batch], {
      ...{ ratio: 1, tokens: 4, promptTokens: 4, temperature: 1, contextLength: 64, seed: 1, step: 0 },
      privilegedTokens,
    }).requests.map(({ member }) => member).sort();
  assertEquals(window().length, 6);
  assertEquals(window(64), [0, 1]);
  assertEquals(window(71), [0, 0, 1]);
  const answers = [{ member: 1, tokens: [5, 6], logProbabilities: [-1, -2] }];
  const { members } = withAnswers(batch, [0, 1], answers, 4);
  assertEquals(members.map(({ ids, privileged }) => [ids.length, privileged!.ids.length]), [[8, 30]]);
});

Deno.test("what cannot be had with a teacher that is told more is refused by its field", async () => {
  const files = { folder: "", teacher: "model", train: "train.jsonl", heldOut: "heldout.jsonl" };
  const refused = (changes: RecipeChanges, path: string) =>
    assertThrows(() => privilegedRecipe(files, changes), RecipeError, path);
  for (
    const teacher of [
      { cache: { topK: 4 } },
      { model: "other", stream: true },
      { model: "other", align: {} },
      { teachers: [{ model: "student" }, { model: "other" }], combine: "mixture" as const },
    ]
  ) refused({ teacher }, "teacher.privileged: cannot be had");
  refused({ data: { tooLong: "split" } as never }, "data.tooLong: cannot be split");
  await withHints(async (files) => {
    const prepare = async (changes: RecipeChanges) => {
      const prepared = await prepareRun(privilegedRecipe(files, changes));
      try {
        return setUp(prepared, new Registry().addAll(builtins));
      } finally {
        prepared.close();
      }
    };
    const features = [{ loss: "forward-kl" }, { loss: "hidden-state-mse" }];
    await assertRejects(() => prepare({ objective: features }), InputError, "inner values");
    await assertRejects(
      () => prepare({ data: { streaming: true } as never }),
      InputError,
      "is told more than the student needs all samples in memory",
    );
    await Deno.writeTextFile(files.train, tinyRows(40, 1));
    await Deno.writeTextFile(files.heldOut, tinyRows(6, 2));
    await assertRejects(() => prepare({}), InputError, "no row has privileged text");
    const long = JSON.stringify({ text: "the cat sat", privileged: "abc ".repeat(60) });
    await Deno.writeTextFile(files.train, tinyRows(40, 1) + long + "\n");
    const error = await assertRejects(() => prepare({}), InputError, "train.jsonl:41: ");
    assertStringIncludes(error.message, "1 sample has more tokens with the privileged text than the 128");
  });
});

function logSoftmax(z: Float64Array): Float64Array {
  const most = z.reduce((a, b) => Math.max(a, b));
  const log = most + Math.log(z.reduce((sum, x) => sum + Math.exp(x - most), 0));
  return z.map((x) => x - log);
}
