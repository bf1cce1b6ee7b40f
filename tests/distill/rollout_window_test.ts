/** What is asked of a student that writes its own samples, and what becomes of its answers. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import {
  promptOf,
  rolloutWindow,
  type WindowOptions,
  withAnswers,
} from "../../src/distill/generate/rollout_window.ts";
import {
  repetition,
  rolloutAlarms,
  rolloutStatistics,
} from "../../src/distill/generate/rollout_statistics.ts";
import { TokenMasks } from "../../src/distill/objective/token_masks.ts";
import { drawnLogProbabilities } from "../../src/distill/program/written/written_samples.ts";
import { parseRecipe, RecipeError, recipeHash } from "../../src/distill/recipe/parse.ts";
import { BatchStream, upcoming } from "../../src/text/batch_stream.ts";
import type { EncodedSample } from "../../src/text/encode.ts";
import { IGNORED_LABEL, packBatch, type PackedBatch } from "../../src/text/packing.ts";
import { prepareRun } from "../../src/distill/inputs/prepare.ts";
import { tinyRecipe, tinySample, withTiny, writeTinyModel } from "./tiny_model.ts";

const options: WindowOptions = {
  ...{ ratio: 0.5, tokens: 10, promptTokens: 4, temperature: 1, contextLength: 32, seed: 3, step: 0 },
};

function sample(supervised: readonly number[]): EncodedSample {
  return { ...tinySample(supervised.length, 0, 1), supervised: Uint8Array.from(supervised) };
}

Deno.test("the prompt of a sample is what stands before its last learnt part, or the beginning of a text", () => {
  const length = (supervised: readonly number[], promptTokens = 4) =>
    promptOf(sample(supervised), promptTokens).length;
  assertEquals(length([0, 0, 0, 1, 1, 1]), 3);
  // Two turns of an assistant: the last one is answered anew.
  assertEquals(length([0, 0, 1, 1, 0, 0, 0, 1, 1]), 7);
  assertEquals(length([0, 0, 1, 1, 0, 0, 0, 1, 0]), 7);
  assertEquals(length([0, 1, 1, 1, 1, 1, 1]), 4);
  assertEquals(length([0, 1, 1]), 2);
  assertEquals(length([0, 1]), 1);
});

/** Batches of samples of 3 to 12 tokens. */
function batches(count: number, tokensPerBatch = 64): PackedBatch[] {
  return Array.from({ length: count }, (_, b) => {
    const lengths = Array.from({ length: 8 }, (_, i) => 3 + (5 * b + 3 * i) % 10);
    const samples: EncodedSample[] = [];
    for (const [i, length] of lengths.entries()) {
      if (samples.reduce((sum, s) => sum + s.ids.length, length) > tokensPerBatch) break;
      samples.push(tinySample(length, i % 2 === 0 ? length - 1 : 1 + length % 2, 10 * b + i + 1));
    }
    return packBatch(samples, tokensPerBatch);
  });
}

Deno.test("a share of the samples leaves, whatever the batch, and the longest answers fit", () => {
  const all = batches(400);
  for (const ratio of [0.1, 0.5, 0.77, 1]) {
    const { leaving, requests } = rolloutWindow(all, { ...options, ratio });
    const members = all.reduce((sum, b) => sum + b.samples, 0);
    const left = leaving.flat().length;
    assert(Math.abs(left / members - ratio) < 0.02, `${left} of ${members} at ${ratio}`);
    all.forEach((batch, b) => {
      assert(Math.abs(leaving[b]!.length - ratio * batch.samples) < 1 + 1e-9);
      const own = requests.filter((r) => r.batch === b);
      assert(own.length > 0 || leaving[b]!.length === 0, "who leaves is asked, one at least");
      const kept = batch.members.filter((_, i) => !leaving[b]!.includes(i));
      const needed = kept.reduce((sum, s) => sum + s.ids.length, 0) +
        own.reduce((sum, r) => sum + r.prompt.length + r.limit, 0);
      assert(needed <= 64, `${needed} tokens`);
      assert(own.length === 0 || needed > 64 - 22, `room for more than ${needed} tokens`);
      // Nobody is asked again before all others whose answers fit.
      const times = leaving[b]!.map((member) => own.filter((r) => r.member === member).length);
      const shortest = Math.min(...own.map((r) => r.prompt.length + r.limit));
      if (needed + shortest <= 64) assert(Math.max(...times) - Math.min(...times) <= 1);
      for (const { member, prompt, limit } of own) {
        assert(leaving[b]!.includes(member));
        assert(limit >= 1 && limit <= 10 && prompt.length + limit <= 32);
      }
    });
  }
});

Deno.test("what is asked follows from seed and step alone", () => {
  const all = batches(6);
  const plain = rolloutWindow(all, options);
  assertEquals(rolloutWindow(batches(6), options), plain);
  for (const other of [{ seed: 4 }, { step: 1 }]) {
    assert(
      JSON.stringify(rolloutWindow(all, { ...options, ...other }).leaving) !== JSON.stringify(plain.leaving),
    );
  }
});

Deno.test("a sample as long as the context is asked for what room there is, and a prompt without room stays", () => {
  const whole = packBatch([tinySample(32, 2, 1)], 32);
  const { requests } = rolloutWindow([whole], { ...options, ratio: 1 });
  assertEquals(requests.map(({ limit }) => limit), [2]);
  // The likeliest answer is one.
  const room = packBatch([tinySample(30, 25, 1)], 64);
  const of = (temperature: number) => rolloutWindow([room], { ...options, ratio: 1, temperature }).requests;
  assertEquals(of(0).map(({ member, limit }) => [member, limit]), [[0, 10]]);
  assertEquals(of(1).map(({ member, limit }) => [member, limit]), [[0, 10], [0, 10], [0, 10], [0, 10]]);
  const full = rolloutWindow([whole], { ...options, ratio: 1, contextLength: 30 });
  assertEquals(full, { leaving: [[]], requests: [] });
});

Deno.test("answers stand for the samples that left, and only they are learnt of them", () => {
  const kept = tinySample(5, 2, 1);
  const left = tinySample(9, 3, 2);
  const batch = packBatch([left, kept], 32);
  const answers = [{ member: 0, tokens: [7, 8, 2], logProbabilities: [-1, -2, -3] }];
  const mixed = withAnswers(batch, [0], answers, 4);
  const prompt = [...left.ids.subarray(0, 6)];
  assertEquals([...mixed.tokens.subarray(0, 14)], [...kept.ids, ...prompt, 7, 8, 2]);
  const none = IGNORED_LABEL;
  assertEquals([...mixed.label.subarray(5, 14)], [none, none, none, none, none, 7, 8, 2, none]);
  assertEquals(mixed.origins, [undefined, "on-policy"]);
  assertEquals([...drawnLogProbabilities(mixed)].slice(0, 14), [...new Array(10).fill(1), -1, -2, -3, 1]);
  assertEquals(withAnswers(batch, [], [], 4), batch);
  // Nothing may be left of a batch but answers, or be left out for want of room.
  assertEquals(withAnswers(batch, [0, 1], answers, 4).samples, 1);

  const masks = new TokenMasks([{}, { data: true }, { source: "on-policy" }]);
  const marked = masks.mark(mixed);
  assertEquals(marked.counts, [5, 2, 3]);
  assertEquals([...marked.masks!.subarray(0, 14)], [0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 5, 5, 5, 0]);
});

Deno.test("a stream tells its next batches and stays where it is, over the end of an epoch too", () => {
  const samples = Array.from({ length: 7 }, (_, i) => tinySample(5 + i, 2, i + 1));
  const stream = new BatchStream(samples, { tokensPerBatch: 20, seed: 1 });
  stream.next();
  const ahead = upcoming(stream, 9);
  assertEquals(Array.from({ length: 9 }, () => stream.next()), ahead);
});

const text = (tokens: number[], finished: boolean, entropy = 1) => ({
  ...{ tokens: Int32Array.from(tokens), finished },
  logProbabilities: new Float32Array(tokens.length + Number(finished)),
  entropies: new Float32Array(tokens.length + Number(finished)).fill(entropy),
});
const limits = { shortest: 1.5, atLimit: 1, entropy: 0.02, repetition: 0.5, ngram: 2 };

Deno.test("statistics of a rollout are what their names say", () => {
  assertEquals(repetition([1, 2, 1, 2, 1, 2], 2), 1 - 2 / 5);
  assertEquals(repetition([1, 2, 3], 4), undefined);
  const found = rolloutStatistics([
    text([1, 2, 1, 2, 1], true, 2),
    text([], true, 5),
    text([3, 4], false, 0.5),
  ], 2);
  assertEquals(found, {
    ...{ answers: 3, tokens: 9, meanLength: 3, atLimit: 1 / 3 },
    ...{ entropy: (6 * 2 + 5 + 2 * 0.5) / 9, repetition: (0.5 + 0) / 2 },
  });
  assertEquals(rolloutStatistics([], 2).meanLength, 0);
});

Deno.test("a rollout whose texts collapse raises alarms that name the knobs, and a healthy one none", () => {
  const healthy = rolloutStatistics(Array.from({ length: 4 }, (_, i) => text([1, 2, 3, i], i > 0)), 2);
  assertEquals(rolloutAlarms(healthy, limits), []);
  const of = (texts: ReturnType<typeof text>[], changed = limits) =>
    rolloutAlarms(rolloutStatistics(texts, 2), changed).map(({ code }) => code);
  const four = (t: ReturnType<typeof text>) => Array.from({ length: 4 }, () => t);
  assertEquals(of(four(text([], true))), ["rollout_short"]);
  assertEquals(of(four(text([1, 2, 3], false))), ["rollout_endless"]);
  assertEquals(of(four(text([1, 2, 3], true, 0.001))), ["rollout_certain"]);
  assertEquals(of(four(text([1, 1, 1, 1, 1], true))), ["rollout_repeats"]);
  // Too few to say anything, or told to say nothing.
  assertEquals(of([text([], true)]), []);
  const never = { shortest: 0, atLimit: 0, entropy: 0, repetition: 1, ngram: 2 };
  assertEquals(of(four(text([], true, 0)), never), []);
  assertEquals(of(four(text([1, 1, 1, 1, 1], false, 0)), never), []);
  const [alarm] = rolloutAlarms(rolloutStatistics(four(text([], true)), 2), limits);
  assertMatch(alarm!.message, /train\.onPolicy\.alarms\.shortest is 1\.5; 0 says nothing/);
});

const recipe = (onPolicy: Record<string, unknown>, change: Record<string, unknown> = {}) =>
  parseRecipe({
    ...{ teacher: { model: "t" }, student: { model: "s" }, data: { train: "d.jsonl", contextLength: 64 } },
    ...change,
    train: { onPolicy },
  });

Deno.test("a recipe with rollouts has their defaults, and one without is the one it was", () => {
  const { onPolicy } = recipe({}).train;
  assertEquals([onPolicy!.every, onPolicy!.ratio, onPolicy!.importance], [1, 0.5, undefined]);
  const plain = parseRecipe({ teacher: { model: "t" }, student: { model: "s" }, data: { train: "d" } });
  assert(!("onPolicy" in plain.train));
  assert(recipeHash(recipe({})) !== recipeHash(recipe({ every: 2 })));
});

Deno.test("rollouts are refused where they cannot be, with the place in the recipe", () => {
  const refused: [() => unknown, string][] = [
    [
      () => recipe({}, { teacher: { model: "t", cache: { topK: 8 } } }),
      "teacher.cache: holds what the teacher makes of texts that are there before training",
    ],
    [
      () => recipe({}, { teacher: { model: "server", server: { url: "http://localhost:1", model: "m" } } }),
      "train.onPolicy: needs a teacher that is there while it trains",
    ],
    [
      () => recipe({}, { student: { model: "s", shapes: { layers: [[0]] } } }),
      "train.onPolicy: cannot be combined with student.shapes",
    ],
    [() => recipe({ temperature: 0, importance: {} }), "train.onPolicy.importance: weighs tokens by"],
    [
      () => recipe({ promptTokens: 64 }),
      "train.onPolicy.promptTokens: must be below data.contextLength (64)",
    ],
    [() => recipe({ ratio: 0 }), "train.onPolicy.ratio"],
    [() => recipe({ every: 0 }), "train.onPolicy.every"],
  ];
  for (const [parse, message] of refused) assertThrows(parse, RecipeError, message);
});

Deno.test("texts end with what tokenizers, both models' generation_config.json and the recipe say", () =>
  withTiny(async (files) => {
    const student = `${files.folder}/student`;
    await writeTinyModel(student, { layers: 2 });
    const config = (folder: string, eos_token_id: unknown) =>
      Deno.writeTextFile(`${folder}/generation_config.json`, JSON.stringify({ eos_token_id }));
    await config(files.teacher, [2, 40]);
    // An id that the vocabulary does not have ends nothing.
    await config(student, [41, 4_000_000]);
    const own = tinyRecipe(files, {
      student: { model: student },
      data: { train: files.train, endToken: 42 },
    });
    const prepared = await prepareRun(own);
    assertEquals([...prepared.stopTokens].sort((a, b) => a - b), [1, 2, 40, 41, 42]);
    prepared.close();
  }));
