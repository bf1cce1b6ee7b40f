/**
 * Models scored on the device against the reference values, PyTorch's in f32 with sums in f64. A run looks at some of the questions and
 * windows; LIMBECK_ALL_GOLDENS=1 at all of them, which takes minutes without a GPU.
 */
// @ts-types="../../types/std_assert.d.ts"
import { assertAlmostEquals, assertEquals } from "@std/assert";
import { builtins } from "../../plugins/mod.ts";
import { encodeChoices } from "../../src/distill/evaluate/encode_items.ts";
import { OpenedModel } from "../../src/distill/evaluate/measured_model.ts";
import { ALONE, BESIDE, type ScoredModels } from "../../src/distill/evaluate/scoring_program.ts";
import { type Stretch, TokenScorer, workOf } from "../../src/distill/evaluate/token_scorer.ts";
import { Model } from "../../src/distill/inputs/models.ts";
import { choiceScore, pick } from "../../src/evaluation/scores/choices.ts";
import { textWindows } from "../../src/evaluation/scores/windows.ts";
import { readItems } from "../../src/evaluation/tasks/items.ts";
import { type MultipleChoiceTask, parseEvaluationTask } from "../../src/evaluation/tasks/task.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { Registry } from "../../src/registry/registry.ts";
import { goldenArrays } from "../goldens/arrays.ts";
import { hasShared, sharedPath, sharedTest } from "../shared.ts";
import { freeing, testGpu } from "../tensor/harness.ts";

const registry = new Registry().addAll(builtins);
const all = Deno.env.get("LIMBECK_ALL_GOLDENS") !== undefined;

function scoringTest(name: string, fn: (gpu: Gpu) => Promise<void>): void {
  if (!hasShared) return sharedTest(name, () => {});
  Deno.test({
    ...{ name, sanitizeResources: false, sanitizeOps: false },
    async fn() {
      const gpu = await testGpu();
      await freeing(gpu, () => fn(gpu));
    },
  });
}

async function opened(model: string, layers?: readonly number[]): Promise<OpenedModel> {
  const path = sharedPath(`models/${model}`);
  return await OpenedModel.of(
    await Model.open(path, { category: "weights", ...(layers ? { layers } : {}) }),
    registry,
  );
}

async function scoring(
  gpu: Gpu,
  models: ScoredModels,
  stretches: readonly Stretch[],
  use: (scorer: TokenScorer) => Promise<void>,
): Promise<void> {
  const scorer = await TokenScorer.create(gpu, registry, models, workOf(stretches));
  try {
    scorer.poison();
    await use(scorer);
  } finally {
    scorer.destroy();
    models.learner.close();
    models.teacher?.close();
  }
}

async function golden<T>(name: string): Promise<T> {
  return JSON.parse(await Deno.readTextFile(sharedPath(`goldens/evaluation/${name}.json`)));
}

/** Where logits of equal rank are too near to tell, ranks are not compared. */
const NEAR = 1e-3;

for (const name of all ? ["stories260K", "stories15M"] : ["stories260K"]) {
  scoringTest(`agreement of two models is that of the reference: ${name}`, async (gpu) => {
    const sets = await golden<Record<string, { layers_b: number[] }>>("agree");
    const arrays = await goldenArrays("goldens/evaluation/agree.safetensors");
    const of = (what: string) => arrays.get(`${name}.${what}`)!;
    const topK = all ? [5, 10] : [5];
    const models = {
      learner: await opened(name, sets[name]!.layers_b),
      teacher: await opened(name),
      topK,
    };
    const ids = Int32Array.from(of("ids"));
    const stretches = [{ ids, from: 1 }];
    await scoring(gpu, models, stretches, async (scorer) => {
      const [found] = await scorer.score(stretches);
      const gaps = of("rank_gap");
      assertEquals(found![ALONE.loss]!.length, gaps.length);
      const compare = (measure: string, what: string, ranks: boolean) =>
        found![measure]!.forEach((value, t) => {
          if (ranks && gaps[t]! < NEAR) return;
          assertAlmostEquals(value, of(what)[t]!, ranks ? 1e-6 : 3e-4, `${what} at ${t}`);
        });
      compare(ALONE.loss, "nll_b", false);
      compare(BESIDE.forwardKl, "kl_ab", false);
      compare(BESIDE.reverseKl, "kl_ba", false);
      compare(BESIDE.jensenShannon, "js", false);
      compare(BESIDE.agreement, "top1_agree", true);
      for (const k of topK) {
        compare(`top-${k}-overlap`, `top${k}_overlap`, true);
        compare(`teacher-first-in-top-${k}`, `top1_of_a_in_top${k}_of_b`, true);
      }
    });
  });
}

scoringTest("perplexity with overlapping windows is that of the reference", async (gpu) => {
  const { settings } = await golden<{
    settings: { name: string; length: number; stride: number; counted: number; mean_nll: number }[];
  }>("ppl");
  const arrays = await goldenArrays("goldens/evaluation/ppl.safetensors");
  const ids = Int32Array.from(arrays.get("ids")!);
  const looked = settings.filter(({ name }) => all || name === "w256_s100");
  const windowsOf = ({ length, stride }: typeof settings[number]) =>
    textWindows(ids.length, length, stride).slice(0, all ? undefined : 2);
  const stretchesOf = (setting: typeof settings[number]) =>
    windowsOf(setting).map(({ start, end, firstCounted }) => ({
      ids: ids.slice(start, end),
      from: firstCounted - start,
    }));
  const model = await opened("stories15M");
  await scoring(gpu, { learner: model }, looked.flatMap(stretchesOf), async (scorer) => {
    for (const setting of looked) {
      const { name, counted, mean_nll } = setting;
      const windows = windowsOf(setting);
      const found = await scorer.score(stretchesOf(setting));
      const [positions, nll] = [arrays.get(`${name}.positions`)!, arrays.get(`${name}.nll`)!];
      const places = windows.flatMap(({ firstCounted, end }) =>
        Array.from({ length: end - firstCounted }, (_, i) => firstCounted + i)
      );
      assertEquals(places, Array.from(positions.subarray(0, places.length)), name);
      const losses = found.flatMap((score) => Array.from(score[ALONE.loss]!));
      losses.forEach((loss, i) => assertAlmostEquals(loss, nll[i]!, 3e-4, `${name}, token ${places[i]}`));
      if (!all) continue;
      assertEquals(losses.length, counted);
      assertAlmostEquals(losses.reduce((sum, loss) => sum + loss, 0) / counted, mean_nll, 5e-5);
    }
  });
});

interface ChoiceGolden {
  first_contexts: { text: string; letter: string; text_ids: number[]; letter_ids: number[] };
  rows: ({
    answer: string;
    sum: number[];
    tokens: number[];
    bytes: number[];
    letters: number[];
    pick_sum: string;
    pick_per_token: string;
    pick_per_byte: string;
    pick_letters: string;
  })[];
  correct: Record<string, number>;
}

scoringTest("multiple choice is that of the reference, by texts and by letters", async (gpu) => {
  const expected = await golden<ChoiceGolden>("mc");
  const rows = expected.rows.slice(0, all ? undefined : 2);
  // A question by letters has twice the tokens of one by texts.
  const byLetters = all ? rows.length : 1;
  const data = sharedPath("data/mmlu-val");
  const layouts = ["mmlu-text", "mmlu"] as const;
  const tasks = layouts.map((layout) =>
    parseEvaluationTask({ layout, data, limit: rows.length }, "test") as MultipleChoiceTask
  );
  const model = await opened("minimind2-small");
  const encoded = await Promise.all(tasks.map(async (task) => {
    const { items } = await readItems(task);
    return items.map((item) => encodeChoices(item as never, task, model.tokenizer, 1024));
  }));
  const [first, letter] = encoded.map(([question]) => question!.choices[0]!.stretch);
  assertEquals(Array.from(first!.ids.subarray(0, first!.from)), expected.first_contexts.text_ids);
  assertEquals(Array.from(letter!.ids.subarray(0, letter!.from)), expected.first_contexts.letter_ids);
  const stretchesOf = (questions: (typeof encoded)[number]) =>
    questions.flatMap(({ choices }) => choices.map(({ stretch }) => stretch));
  const questions = [...encoded[0]!, ...encoded[1]!.slice(0, byLetters)];
  // All in one pass, as a pass costs what the largest does.
  await scoring(gpu, { learner: model }, stretchesOf(questions), async (scorer) => {
    const scored = async (questions: (typeof encoded)[number]) => {
      const scores = (await scorer.score(stretchesOf(questions))).values();
      return questions.map(({ choices }) =>
        choices.map(({ bytes }) => {
          const losses = scores.next().value![ALONE.loss]!;
          return { logLikelihood: -losses.reduce((a, b) => a + b, 0), tokens: losses.length, bytes };
        })
      );
    };
    const found = await scored(questions);
    const [texts, letters] = [found.slice(0, rows.length), found.slice(rows.length)];
    const right: Record<string, number> = { sum: 0, per_token: 0, per_byte: 0, letters: 0 };
    rows.forEach((row, n) => {
      const check = (way: keyof typeof right, scores: readonly number[], picked: string) => {
        assertEquals("ABCD"[pick(scores).choice], picked, `question ${n} by ${way}`);
        if (picked === row.answer) right[way]!++;
      };
      texts[n]!.forEach(({ logLikelihood, tokens, bytes }, c) => {
        assertEquals([tokens, bytes], [row.tokens[c], row.bytes[c]]);
        assertAlmostEquals(logLikelihood, row.sum[c]!, 5e-4 * tokens, `question ${n}, choice ${c}`);
        if (n >= byLetters) return;
        assertAlmostEquals(
          letters[n]![c]!.logLikelihood,
          row.letters[c]!,
          5e-4,
          `question ${n}, letter ${c}`,
        );
      });
      const by = (way: Parameters<typeof choiceScore>[1]) =>
        texts[n]!.map((choice) => choiceScore(choice, way));
      check("sum", by("sum"), row.pick_sum);
      check("per_token", by("per-token"), row.pick_per_token);
      check("per_byte", by("per-byte"), row.pick_per_byte);
      if (n >= byLetters) return;
      check("letters", letters[n]!.map(({ logLikelihood }) => logLikelihood), row.pick_letters);
    });
    if (all) assertEquals(right, expected.correct);
  });
});
