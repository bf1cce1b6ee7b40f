/** Losses over pairs of texts: their expressions, how pairs are packed, and what a training step makes of them. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { parseRecipe } from "../../src/distill/recipe/parse.ts";
import { InputError } from "../../src/base/errors.ts";
import { pairGradients } from "../../src/losses/pairs.ts";
import type { TrainingSetup } from "../../src/distill/program/plan_training.ts";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import { Trainer } from "../../src/distill/program/trainer.ts";
import { TokenMasks } from "../../src/distill/objective/token_masks.ts";
import { Objective } from "../../src/distill/objective/objective.ts";
import type { ObjectiveTerm } from "../../src/distill/recipe/recipe.ts";
import {
  CONTRACT_VERSION,
  defineDivergence,
  type Divergence,
  noOptions,
} from "../../src/registry/contract.ts";
import { Registry } from "../../src/registry/registry.ts";
import { compile } from "../../src/tensor/expr/mod.ts";
import { readRows } from "../../src/text/dataset.ts";
import { BatchStream } from "../../src/text/batch_stream.ts";
import { encodeDataset, type EncodedSample } from "../../src/text/encode.ts";
import { IGNORED_LABEL, packBatch } from "../../src/text/packing.ts";
import { TextTokenizer } from "../../src/text/tokenizer.ts";
import { builtins } from "../../plugins/mod.ts";
import dpo from "../../plugins/losses/dpo.ts";
import ktoPair from "../../plugins/losses/kto_pair.ts";
import { modelTest } from "../tensor/harness.ts";
import { Reader } from "./logits.ts";
import { runHere } from "./tiny_run.ts";
import { tinyRecipe, tinySample, tinySetup, tinyTokenizerJson, withTiny } from "./tiny_model.ts";

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));

/** The losses of some pairs by their definitions, in f64: mean over pairs. */
const REFERENCE: Record<string, (chosen: number[], rejected: number[]) => number> = {
  dpo(chosen, rejected) {
    return mean(chosen.map((c, i) => -Math.log(sigmoid(0.3 * (c - rejected[i]!)))));
  },
  "kto-pair"(chosen, rejected) {
    const [zChosen, zRejected] = [Math.max(mean(chosen), 0), Math.max(mean(rejected), 0)];
    const both = chosen.map((c, i) =>
      (1 - sigmoid(0.3 * (c - zRejected))) / 2 + (1 - sigmoid(0.3 * (zChosen - rejected[i]!))) / 2
    );
    return mean(both);
  },
};

function mean(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0) / values.length;
}

const POINTS = [[0, 0, 0, 0], [3, -2, 0.5, -1], [-40, 60, 1, 2], [500, -500, 3, -3], [0.1, 0.2, -1, 4]];

for (
  const [loss, options] of [[dpo, { beta: 0.3, labelSmoothing: 0.1 }], [ktoPair, { beta: 0.3 }]] as const
) {
  Deno.test(`${loss.id} has the derivatives that central differences have, and is finite far out`, () => {
    const { value, chosen, rejected } = pairGradients(loss, options);
    const at = compile([value, chosen, rejected], ["chosen", "rejected", "chosenMean", "rejectedMean"]);
    for (const point of POINTS) {
      const found = [...at(point as never)];
      assert(found.every(Number.isFinite), `${point}: ${found}`);
      [0, 1].forEach((which) => {
        const moved = (by: number) => at(point.map((v, i) => i === which ? v + by : v) as never)[0]!;
        const difference = (moved(1e-5) - moved(-1e-5)) / 2e-5;
        assertAlmostEquals(found[1 + which]!, difference, 1e-8, `${point}`);
      });
    }
  });
}

Deno.test("dpo and kto-pair are what their papers say", () => {
  const of = (loss: Divergence, options: Record<string, unknown>, point: number[]) =>
    [
      ...compile([pairGradients(loss, options).value], ["chosen", "rejected", "chosenMean", "rejectedMean"])(
        point as never,
      ),
    ][0]!;
  assertAlmostEquals(
    of(dpo, { beta: 0.3, labelSmoothing: 0 }, [2, -1, 0, 0]),
    REFERENCE.dpo!([2], [-1]),
    1e-12,
  );
  assertAlmostEquals(of(ktoPair, { beta: 0.3 }, [2, -1, 2, -1]), REFERENCE["kto-pair"]!([2], [-1]), 1e-12);
});

function pair(chosen: number, rejected: number, prompt: number, seed: number): EncodedSample {
  const better = tinySample(chosen, chosen - prompt, seed);
  const worse = tinySample(rejected, rejected - prompt, seed + 50);
  worse.ids.set(better.ids.subarray(0, prompt));
  return { ...better, rejected: { ids: worse.ids, supervised: worse.supervised } };
}

Deno.test("the texts of a pair stand side by side as two samples, and other losses learn the chosen one alone", () => {
  const batch = packBatch([tinySample(3, 1, 9), pair(5, 4, 2, 1)], 16);
  assertEquals([...batch.segment], [0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, -1, -1, -1, -1]);
  assertEquals([...batch.position.subarray(3, 12)], [0, 1, 2, 3, 4, 0, 1, 2, 3]);
  assertEquals([...batch.kvStart.subarray(7, 10)], [3, 8, 8]);
  assertEquals([...batch.label].map((l) => Number(l !== IGNORED_LABEL)).join(""), "0100111000000000");
  assertEquals(batch.supervised, 4);
  assertEquals([...batch.pairs!.role], [0, 0, 0, 0, 1, 1, 1, 0, 0, -1, -1, 0, 0, 0, 0, 0]);
  assertEquals([...batch.pairs!.chosenEnd.subarray(2, 13)], [0, 8, 8, 8, 8, 8, 8, 8, 8, 8, 0]);
  const masks = new TokenMasks([{ tokens: "pair" }, { tokens: "pairHead" }]);
  const { counts, labels } = masks.mark(batch);
  assertEquals(counts, [4, 5, 1]);
  assertEquals([labels[9], labels[10]], [batch.tokens[10], batch.tokens[11]]);
  // A pair is never taken apart.
  const stream = new BatchStream([pair(20, 20, 3, 1), pair(10, 9, 3, 2), pair(8, 9, 2, 3)], {
    ...{ tokensPerBatch: 40, seed: 1 },
  });
  for (let i = 0; i < 6; i++) assertEquals(stream.next().members.length % 2, 0);
});

Deno.test("rows of prompt, chosen and rejected become pairs, and faulty ones are named", async () => {
  const tokenizer = TextTokenizer.fromJson(tinyTokenizerJson(), {}, "tokenizer.json", {
    bosTokenId: 1,
    eosTokenIds: [2],
  });
  const read = (text: string) =>
    Array.fromAsync(readRows(ReadableStream.from([new TextEncoder().encode(text)]), "pairs.jsonl"));
  const rows = await read(
    '{"prompt": "the cat ", "chosen": "sat", "rejected": "ran home"}\n{"prompt": "a ", "completion": "mat"}\n',
  );
  const { samples, report } = encodeDataset(rows, { tokenizer, contextLength: 32, endToken: 2 });
  assertEquals([report.rowsByShape.pair, report.samples], [1, 2]);
  const [first, second] = samples;
  assertEquals(second!.rejected, undefined);
  assertEquals(tokenizer.decode(first!.ids.filter((_, i) => first!.supervised[i] === 1)).trim(), "sat</s>");
  const { ids, supervised } = first!.rejected!;
  assertEquals(tokenizer.decode(ids.filter((_, i) => supervised[i] === 1)).trim(), "ran home</s>");
  for (
    const [line, message] of [
      ['{"prompt": "a", "chosen": "b"}', "rejected must be a string, found nothing"],
      ['{"prompt": "a", "chosen": "b", "rejected": "b"}', "chosen and rejected are the same"],
      ['{"prompt": "a", "chosen": "", "rejected": "b"}', "chosen is empty"],
      [
        '{"prompt": "a", "completion": "c", "chosen": "b", "rejected": "d"}',
        "has prompt and completion as well as chosen and rejected",
      ],
    ]
  ) {
    await assertRejects(() => read(line!), InputError, `pairs.jsonl:1: ${message}`);
  }
});

const term = (loss: string, more: Partial<ObjectiveTerm> = {}): ObjectiveTerm => ({
  ...{ loss, weight: 1, temperature: 1, options: {} },
  ...more,
});

Deno.test("what a loss over pairs cannot have is refused by its place", () => {
  const registry = new Registry().addAll(builtins);
  const of = (...terms: ObjectiveTerm[]) => Objective.of(registry, terms, 100);
  for (const more of [{ source: "teacher" }, { tokens: "all" as const }, { balance: { max: 2 } }]) {
    assertThrows(() => of(term("dpo", more)), InputError, "compares pairs of texts, whole, for the student");
  }
  const cache = { topK: 4, seed: 1, precision: "f32" as const };
  assertThrows(
    () => Objective.of(registry, [term("dpo")], 100, { cache }),
    InputError,
    "nothing of rejected texts",
  );
});

/** Sums of log q - log p over what is learnt of each text, from whole logits in f64. */
async function ratios(student: Reader, teacher: Reader, samples: readonly EncodedSample[]) {
  const sum = async ({ ids, supervised }: Pick<EncodedSample, "ids" | "supervised">) => {
    const [q, p] = [await student.logits(ids), await teacher.logits(ids)];
    const width = q.length / ids.length;
    const logProbability = (logits: Float32Array, t: number) => {
      const row = Array.from(logits.subarray(t * width, (t + 1) * width));
      const top = Math.max(...row);
      return row[ids[t + 1]!]! - top - Math.log(row.reduce((s, z) => s + Math.exp(z - top), 0));
    };
    let total = 0;
    for (let t = 0; t + 1 < ids.length; t++) {
      if (supervised[t + 1]) total += logProbability(q, t) - logProbability(p, t);
    }
    return total;
  };
  const found = { chosen: [] as number[], rejected: [] as number[] };
  for (const sample of samples) {
    found.chosen.push(await sum(sample));
    found.rejected.push(await sum(sample.rejected!));
  }
  return found;
}

/** The same value as dpo, but with nothing flowing back through the chosen text. */
const half = defineDivergence({
  id: "test/half",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  options: noOptions,
  value: dpo.value!,
  pairs: ({ chosen, rejected, ...rest }) =>
    dpo.pairs!({ ...rest, chosen: chosen.detach(), rejected, options: { beta: 0.3, labelSmoothing: 0 } }),
});

modelTest(
  "a step over pairs has the loss of the definition, and the gradient that the loss has",
  (gpu) =>
    withTiny(async (files) => {
      const samples = [pair(9, 12, 4, 1), pair(14, 7, 3, 2), pair(6, 11, 2, 3)];
      const objective = (loss: string) => [
        { loss, options: loss === "test/half" ? {} : { beta: 0.3 } },
        { loss: "forward-kl", weight: 0 },
      ];
      const shared = await Promise.all(["dpo", "kto-pair"].map((loss) =>
        tinySetup(
          tinyRecipe(files, { objective: objective(loss), train: { tokensPerMicroBatch: 64, clip: 0 } }),
        )
      ));
      const trained = async (
        setup: TrainingSetup,
        check: (trainer: Trainer, start: Float32Array) => Promise<void>,
      ) => {
        const trainer = await Trainer.create(gpu, setup, planTraining(setup, gpu.description));
        const start = (await setup.trainables.initialValues(1)).trained;
        // B of an adapter is zero at first, and so is the gradient of A.
        start.forEach((value, i) => start[i] = value === 0 ? 0.02 * (i % 7 - 3) : value);
        await check(trainer, start);
        trainer.destroy();
      };
      const lossAt = async (trainer: Trainer, at: Float32Array) => {
        trainer.setState(at);
        const batch = packBatch(samples, trainer.planned.choices.tokens);
        await trainer.step(0, [batch]);
        return (await trainer.collect())[0]!;
      };
      /** The slope along the gradient over the gradient's length: 1 where the two belong together. */
      const slope = async (trainer: Trainer, start: Float32Array) => {
        await lossAt(trainer, start);
        const flat = new Float32Array(start.length);
        trainer.setup.trainables.layout.scatter(flat, await trainer.readGradients());
        const length = Math.hypot(...flat);
        const moved = async (by: number) =>
          (await lossAt(
            trainer,
            start.map((value, i) => value + by * flat[i]! / length),
          )).loss;
        return (await moved(0.02) - await moved(-0.02)) / 0.04 / length;
      };
      for (const setup of shared) {
        const { id } = setup.objective.terms[0]!.loss;
        await trained(setup, async (trainer, start) => {
          const { loss, losses } = await lossAt(trainer, start);
          using student = await Reader.open(gpu, setup.student, 64, { ...setup, parameters: start });
          using teacher = await Reader.open(gpu, setup.teacher, 64);
          const { chosen, rejected } = await ratios(student, teacher, samples);
          assert(Math.max(...chosen.map(Math.abs)) > 1, "the models differ");
          const expected = REFERENCE[id]!(chosen, rejected);
          assertAlmostEquals(loss, expected, 2e-5, id);
          assertEquals(losses[id], loss);
          if (id === "dpo") {
            trainer.setState(start);
            const measured = await trainer.evaluate(samples);
            assertAlmostEquals(measured.losses.dpo!, expected, 2e-5);
            const likelier = chosen.filter((c, i) => c > rejected[i]!).length;
            assertAlmostEquals(measured.losses["dpo accuracy"]!, likelier / 3, 1e-6);
            // The texts that are learnt by others are the chosen ones.
            assertEquals(
              measured.tokens,
              samples.reduce((n, s) => n + s.supervised.reduce((a, b) => a + b, 0), 0),
            );
            assertAlmostEquals(await slope(trainer, start), 1, 0.01);
          }
        });
      }
      const registry = new Registry().addAll(builtins).addAll([half]);
      const { recipe, ...rest } = shared[0]!;
      const objectiveOfHalf = Objective.of(
        registry,
        [term("test/half"), term("forward-kl", { weight: 0 })],
        rest.student.config.vocabularySize,
      );
      await trained({ ...rest, recipe, objective: objectiveOfHalf }, async (trainer, start) => {
        const found = await slope(trainer, start);
        assert(Math.abs(found - 1) > 0.1, `half a gradient passes: ${found}`);
      });
      for (const setup of shared) setup[Symbol.dispose]();
    }),
);

modelTest(
  "a run over pairs lowers the loss of pairs, and one without pairs is refused",
  () =>
    withTiny(async (files) => {
      const words = ["the cat", "a mat", "his sun", "home to", "and ran", "to see"];
      const rows = (from: number) =>
        Array.from({ length: 8 }, (_, i) =>
          JSON.stringify({
            ...{
              prompt: `${words[(i + from) % 6]} `,
              chosen: `sat on ${words[i % 6]}`,
              rejected: `${words[i % 6]} no`,
            },
          })).join("\n");
      const plain = tinyRecipe(files, { objective: [{ loss: "dpo" }], train: { steps: 2 } });
      await assertRejects(
        () => runHere(plain, `${files.folder}/none`),
        InputError,
        "the training data has none",
      );
      await Deno.writeTextFile(files.train, rows(0));
      await assertRejects(
        () => runHere(plain, `${files.folder}/some`),
        InputError,
        "the held-out data has none",
      );
      await Deno.writeTextFile(files.heldOut, rows(1));
      const recipe = tinyRecipe(files, {
        objective: [{ loss: "dpo" }],
        train: { steps: 8, tokensPerMicroBatch: 128 },
      });
      const events: import("../../src/distill/run/events.ts").RunEventBody[] = [];
      await runHere(recipe, `${files.folder}/run`, {}, events);
      const measured = events.flatMap((e) =>
        e.type === "evaluation" && e.model === "student" ? [e.losses] : []
      );
      assert(
        measured.at(-1)!.dpo! < measured[0]!.dpo! - 0.05,
        `${measured[0]!.dpo} to ${measured.at(-1)!.dpo}`,
      );
      assertEquals(measured.at(-1)!["dpo accuracy"], 1);
      const rollouts = tinyRecipe(files, { train: { onPolicy: {} } });
      await assertRejects(
        () => runHere(rollouts, `${files.folder}/rollouts`),
        InputError,
        "cannot leave for an answer of the student",
      );
      const { model } = recipe.teacher;
      const teachers = [{ model, name: "a" }, { model, name: "b" }];
      const kl = [{ loss: "forward-kl" }];
      for (
        const [teacher, objective] of [
          [{ model, cache: { topK: 4 } }, kl],
          [{ combine: "best", teachers }, recipe.objective],
        ]
      ) {
        const bySample = parseRecipe({ ...recipe, teacher, objective });
        await assertRejects(
          () => runHere(bySample, `${files.folder}/by-sample`),
          InputError,
          "a pair of texts needs",
        );
      }
    }),
);
