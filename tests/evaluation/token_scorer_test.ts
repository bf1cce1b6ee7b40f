/** Tokens scored on the device against softmaxes in f64 of the same model's logits. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { builtins } from "../../plugins/mod.ts";
import { InputError } from "../../src/base/errors.ts";
import { OpenedModel } from "../../src/distill/evaluate/measured_model.ts";
import { ALONE, BESIDE } from "../../src/distill/evaluate/scoring_program.ts";
import {
  type ScoredStretch,
  type Stretch,
  TokenScorer,
  workOf,
} from "../../src/distill/evaluate/token_scorer.ts";
import { Model } from "../../src/distill/inputs/models.ts";
import { Registry } from "../../src/registry/registry.ts";
import { Reader } from "../distill/logits.ts";
import { TINY_VOCABULARY, tinySample, withTiny, writeTinyModel } from "../distill/tiny_model.ts";
import { modelTest } from "../tensor/harness.ts";

const registry = new Registry().addAll(builtins);
const V = TINY_VOCABULARY;

/** log softmax of a row, f64. */
function logSoftmax(logits: Float32Array, row: number): number[] {
  const z = Array.from(logits.subarray(row * V, (row + 1) * V));
  const most = Math.max(...z);
  const log = most + Math.log(z.reduce((sum, x) => sum + Math.exp(x - most), 0));
  return z.map((x) => x - log);
}

const top = (log: readonly number[], k: number) =>
  log.map((_, v) => v).sort((a, b) => log[b]! - log[a]! || a - b).slice(0, k);

modelTest(
  "scores are those of the models' logits, whatever is packed beside them",
  (gpu) =>
    withTiny(async ({ teacher: path }) => {
      const open = async (layers?: readonly number[]) =>
        await OpenedModel.of(
          await Model.open(path, { category: "weights", ...(layers ? { layers } : {}) }),
          registry,
        );
      const long = tinySample(70, 0, 1).ids;
      const context = tinySample(9, 0, 2).ids;
      const followed = (...rest: number[]): Stretch => ({
        ids: Int32Array.from([...context, ...rest]),
        from: 9,
      });
      // Three that differ in their last token alone share a row; one goes on; one begins at its second token.
      const stretches = [followed(5), { ids: long, from: 1 }, followed(7), followed(5, 9, 11), followed(3)];
      const logits = new Map<string, Float32Array[]>();
      for (const [name, layers] of [["learner", [0, 2]], ["teacher", undefined]] as const) {
        const { model } = await open(layers);
        using reader = await Reader.open(gpu, model, 80);
        const found: Float32Array[] = [];
        for (const { ids } of stretches) found.push((await reader.logits(ids)).slice());
        logits.set(name, found);
        model.close();
      }
      const models = { learner: await open([0, 2]), teacher: await open(), topK: [3] };
      const scorer = await TokenScorer.create(gpu, registry, models, workOf(stretches));
      scorer.poison();
      const told: [number, number][] = [];
      const scores = await scorer.score(stretches, (...progress) => told.push(progress));
      // Two of the five went through with another.
      assertEquals(told.at(-1), [70 + 10 + 12, 70 + 10 + 12]);
      let [compared, misplaced] = [0, 0];
      stretches.forEach(({ ids, from }, s) => {
        const score = scores[s]!;
        for (let i = from; i < ids.length; i++) {
          const q = logSoftmax(logits.get("learner")![s]!, i - 1);
          const p = logSoftmax(logits.get("teacher")![s]!, i - 1);
          const at = (measure: string) => score[measure]![i - from]!;
          const close = (measure: string, value: number) =>
            assertAlmostEquals(
              at(measure),
              value,
              2e-5 * Math.max(1, Math.abs(value)),
              `${measure} at ${s}, ${i}`,
            );
          const mean = p.map((x, v) => Math.log((Math.exp(x) + Math.exp(q[v]!)) / 2));
          const kl = (a: readonly number[], b: readonly number[]) =>
            a.reduce((sum, x, v) => sum + Math.exp(x) * (x - b[v]!), 0);
          close(ALONE.loss, -q[ids[i]!]!);
          close(ALONE.confidence, Math.exp(Math.max(...q)));
          close(ALONE.correct, Number(top(q, 1)[0] === ids[i]));
          close(BESIDE.forwardKl, kl(p, q));
          close(BESIDE.reverseKl, kl(q, p));
          close(BESIDE.jensenShannon, (kl(p, mean) + kl(q, mean)) / 2);
          close(BESIDE.agreement, Number(top(p, 1)[0] === top(q, 1)[0]));
          close("top-3-overlap", top(q, 3).filter((v) => top(p, 3).includes(v)).length / 3);
          close("teacher-first-in-top-3", Number(top(q, 3).includes(top(p, 1)[0]!)));
          compared++;
          // A pairing that is off by one is seen.
          if (Math.abs(at(ALONE.loss) + q[ids[i - 1]!]!) > 1e-3) misplaced++;
        }
      });
      assertEquals(compared, 69 + 1 + 1 + 3 + 1);
      assert(misplaced > 0.8 * compared);
      // In another order, and alone, the same but for rounding: sums begin at other places of a tile.
      const same = (found: ScoredStretch, expected: ScoredStretch) => {
        for (const [measure, values] of Object.entries(found)) {
          values.forEach((value, i) => assertAlmostEquals(value, expected[measure]![i]!, 1e-4, measure));
        }
      };
      (await scorer.score([...stretches].reverse())).reverse().forEach((found, i) => same(found, scores[i]!));
      same((await scorer.score([stretches[3]!]))[0]!, scores[3]!);
      scorer.destroy();
      models.learner.close();
      models.teacher.close();
    }),
);

modelTest(
  "models of other vocabularies are not compared token by token",
  (gpu) =>
    withTiny(async ({ teacher: path, folder }) => {
      await writeTinyModel(`${folder}/other`, { layers: 1 });
      const json = `${folder}/other/tokenizer.json`;
      const tokenizer = JSON.parse(await Deno.readTextFile(json));
      const { vocab } = tokenizer.model;
      [vocab.a, vocab.b] = [vocab.b, vocab.a];
      await Deno.writeTextFile(json, JSON.stringify(tokenizer));
      const models = {
        learner: await OpenedModel.open(`${folder}/other`, registry),
        teacher: await OpenedModel.open(path, registry),
      };
      const work = { longest: 8, tokens: 8, predicted: 7 };
      await assertRejects(
        () => TokenScorer.create(gpu, registry, models, work),
        InputError,
        "another vocabulary",
      );
      models.learner.close();
      models.teacher.close();
    }),
);
