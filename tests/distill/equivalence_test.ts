/** Ways to compute one step that must not change its result. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertGreater, assertLess } from "@std/assert";
import type { Recipe } from "../../src/distill/recipe/recipe.ts";
import { Trainer } from "../../src/distill/program/trainer.ts";
import { type StepMetrics } from "../../src/distill/program/metrics/step_metrics.ts";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { packBatch, type PackedBatch } from "../../src/text/packing.ts";
import { gpuTest, randomArray, testGpu } from "../tensor/harness.ts";
import { type RecipeChanges, tinyRecipe, tinySample, tinySetup, withTiny } from "./tiny_model.ts";

/** Rounding of sums of a few hundred f32 in another order. */
const ROUNDING = 5e-6;

/** Numbers of one step from fixed parameters. */
interface Step {
  readonly metrics: StepMetrics;
  readonly gradients: ReadonlyMap<string, Float32Array>;
}

/** Runs `fn` with a trainer whose parameters, B included, are random: no gradient is zero. */
async function withTrainer<T>(gpu: Gpu, recipe: Recipe, fn: (trainer: Trainer) => Promise<T>): Promise<T> {
  using setup = await tinySetup(recipe);
  const trainer = await Trainer.create(gpu, setup, planTraining(setup, gpu.description));
  try {
    trainer.executable.poison();
    reset(trainer);
    return await fn(trainer);
  } finally {
    trainer.destroy();
  }
}

function reset(trainer: Trainer): void {
  const { layout } = trainer.setup.trainables;
  const values = layout.parameters.map(({ name, count }, i) =>
    [name, randomArray(count, i + 1, 0.3)] as const
  );
  const flat = new Float32Array(layout.total);
  layout.scatter(flat, new Map(values));
  trainer.setState(flat);
}

async function stepOn(trainer: Trainer, window: readonly PackedBatch[], step = 0): Promise<Step> {
  reset(trainer);
  await trainer.step(step, window);
  const gradients = await trainer.readGradients();
  const [metrics] = await trainer.collect();
  assertEquals(metrics!.nonFinite, false);
  return { metrics: metrics!, gradients };
}

function oneStep(
  gpu: Gpu,
  recipe: Recipe,
  window: (tokens: number) => PackedBatch[],
  step = 0,
): Promise<Step> {
  return withTrainer(gpu, recipe, (t) => stepOn(t, window(t.planned.choices.tokens), step));
}

/** Largest relative distance (L2) of a parameter's gradient. */
function distance(a: Step, b: Step): number {
  assertEquals([...a.gradients.keys()], [...b.gradients.keys()]);
  return Math.max(...[...b.gradients].map(([name, expected]) => {
    const actual = a.gradients.get(name)!;
    const norm = Math.hypot(...expected);
    assertGreater(norm, 0, `${name} has a gradient`);
    return Math.hypot(...expected.map((e, i) => actual[i]! - e)) / norm;
  }));
}

function assertSame(a: Step, b: Step, tolerance: number, what: string): void {
  for (const [name, loss] of Object.entries(b.metrics.losses)) {
    assertAlmostEquals(a.metrics.losses[name]!, loss, tolerance * loss, `${what}: ${name}`);
  }
  const { gradientNorm, supervisedTokens, tokens } = b.metrics;
  assertAlmostEquals(a.metrics.gradientNorm, gradientNorm, tolerance * gradientNorm, `${what}: norm`);
  assertEquals([a.metrics.supervisedTokens, a.metrics.tokens], [supervisedTokens, tokens], what);
  const worst = distance(a, b);
  assert(worst <= tolerance, `${what}: gradients differ by ${worst}`);
}

/** Four groups of samples of 64 tokens, with 1, 60, 7 and 24 targets. */
const GROUPS = [
  [tinySample(64, 1, 1)],
  [tinySample(30, 28, 2), tinySample(34, 32, 3)],
  [tinySample(20, 3, 4), tinySample(44, 4, 5)],
  [tinySample(24, 24, 6), tinySample(2, 1, 7), tinySample(38, 1, 8)],
];
const ALL = GROUPS.flat();

const train = (settings: RecipeChanges["train"]): RecipeChanges => ({ train: settings });

gpuTest("four micro-batches of 64 tokens equal one of 256", (gpu) =>
  withTiny(async (files) => {
    const short = tinyRecipe(files, train({ tokensPerMicroBatch: 64, accumulation: 4 }));
    const whole = await oneStep(
      gpu,
      tinyRecipe(files, train({ tokensPerMicroBatch: 256 })),
      (t) => [packBatch(ALL, t)],
    );
    await withTrainer(gpu, short, async (trainer) => {
      const batches = GROUPS.map((g) => packBatch(g, 64));
      assertEquals(batches.map((b) => b.supervised), [1, 60, 7, 25]);
      assertSame(await stepOn(trainer, batches), whole, ROUNDING, "accumulated");

      // The field's commonest mistake, made on purpose: a mean of the micro-batches' means.
      const alone: Step[] = [];
      for (const batch of batches) alone.push(await stepOn(trainer, [batch]));
      const mean = new Map([...whole.gradients.keys()].map((name) => [
        name,
        whole.gradients.get(name)!.map((_, i) =>
          alone.reduce((sum, s) => sum + s.gradients.get(name)![i]! / 4, 0)
        ),
      ]));
      assertGreater(distance({ ...whole, gradients: mean }, whole), 0.1);
    });
  }));

gpuTest("samples packed in a stream equal one sample at a time", (gpu) =>
  withTiny(async (files) => {
    const packed = await withTrainer(
      gpu,
      tinyRecipe(files, train({ tokensPerMicroBatch: 256 })),
      async (trainer) => {
        const batch = packBatch(ALL, 256);
        const good = await stepOn(trainer, [batch]);
        // A query that sees the sample before its own is noticed.
        const leaking = { ...batch, kvStart: new Int32Array(256) };
        assertGreater(distance(await stepOn(trainer, [leaking]), good), 0.01);
        return good;
      },
    );
    await withTrainer(gpu, tinyRecipe(files, train({ tokensPerMicroBatch: 64 })), async (trainer) => {
      const batches = ALL.map((sample) => packBatch([sample], 64));
      assertSame(await stepOn(trainer, batches), packed, ROUNDING, "one at a time");
      let sum = 0;
      for (const batch of batches) sum += (await stepOn(trainer, [batch])).metrics.loss * batch.supervised;
      assertAlmostEquals(sum / packed.metrics.supervisedTokens, packed.metrics.loss, 1e-6);
    });
  }));

gpuTest("filler changes nothing, whatever its tokens are", (gpu) =>
  withTiny(async (files) => {
    const samples = [tinySample(20, 15, 1), tinySample(13, 6, 2)];
    const tight = await oneStep(gpu, tinyRecipe(files), (t) => [packBatch(samples, t)]);
    await withTrainer(gpu, tinyRecipe(files, train({ tokensPerMicroBatch: 192 })), async (trainer) => {
      const batch = packBatch(samples, 192);
      const loose = await stepOn(trainer, [batch]);
      assertSame(loose, tight, ROUNDING, "with more filler");
      const other = { ...batch, tokens: batch.tokens.map((t, i) => batch.segment[i]! < 0 ? 7 + i : t) };
      const again = await stepOn(trainer, [other]);
      assertEquals(again, loose);
      // The other way round: a token that is no filler does matter.
      const changed = { ...batch, tokens: batch.tokens.with(3, 9) };
      assertGreater(distance(await stepOn(trainer, [changed]), loose), 1e-3);
    });
  }));

gpuTest("the size of head chunks changes nothing beyond rounding", (gpu) =>
  withTiny(async (files) => {
    const steps: Step[] = [];
    for (const headChunk of [64, 128, 256] as const) {
      const recipe = tinyRecipe(files, train({ tokensPerMicroBatch: 256, headChunk }));
      steps.push(
        await withTrainer(gpu, recipe, (trainer) => {
          const { tokens, chunkRows } = trainer.planned.choices;
          assertEquals([tokens, chunkRows], [256, headChunk]);
          return stepOn(trainer, [packBatch(ALL, 256)]);
        }),
      );
    }
    for (const step of steps.slice(1)) assertSame(step, steps[0]!, ROUNDING, "other chunks");
  }));

gpuTest(
  "activation checkpointing gives the same bits with fewer bytes, dropout included",
  (gpu) =>
    withTiny(async (files) => {
      const results: { step: Step; bytes: number }[] = [];
      for (const activationCheckpointing of ["off", "on"] as const) {
        const recipe = tinyRecipe(files, {
          adapter: { dropout: 0.3 },
          ...train({ tokensPerMicroBatch: 256, headChunk: 64, activationCheckpointing }),
          student: { model: "teacher" },
        });
        results.push(
          await withTrainer(gpu, recipe, async (trainer) => {
            assertEquals(trainer.planned.choices.recompute, activationCheckpointing === "on");
            return {
              step: await stepOn(trainer, [packBatch(ALL, 256)], 5),
              bytes: trainer.planned.plan.bytesByCategory.get("activations")!,
            };
          }),
        );
      }
      const [off, on] = results as [typeof results[0], typeof results[0]];
      assertEquals(on.step, off.step);
      assertLess(on.bytes, 0.6 * off.bytes);
    }),
);

Deno.test({
  name: "both kernel families give the same step",
  sanitizeResources: false,
  sanitizeOps: false,
  fn: () =>
    withTiny(async (files) => {
      const gpus = [await testGpu("subgroup8"), await testGpu("tiled")];
      if (gpus[0]!.description.subgroupSize !== 8) return console.log("skip: no subgroups of 8 lanes here");
      const recipe = tinyRecipe(files, { adapter: { dropout: 0.3 }, ...train({ tokensPerMicroBatch: 256 }) });
      const [a, b] = [
        await oneStep(gpus[0]!, recipe, (t) => [packBatch(ALL, t)]),
        await oneStep(gpus[1]!, recipe, (t) => [packBatch(ALL, t)]),
      ];
      assertSame(a, b, 2 * ROUNDING, "subgroup8 and tiled");
    }),
});

gpuTest(
  "dropout draws by (seed, step, micro-batch) alone, and not in evaluation",
  (gpu) =>
    withTiny(async (files) => {
      const withDropout = (dropout: number, seed: number) =>
        tinyRecipe(files, { adapter: { dropout }, train: { seed } });
      const window = [packBatch([GROUPS[1]![0]!], 64)];
      const first = await withTrainer(gpu, withDropout(0.5, 1), async (trainer) => {
        const first = await stepOn(trainer, window, 3);
        assertEquals(await stepOn(trainer, window, 3), first);
        assertGreater(distance(await stepOn(trainer, window, 4), first), 0.05);
        // The same samples twice in a window: two masks, so not the gradient of either alone.
        const twice = await stepOn(trainer, [window[0]!, window[0]!], 3);
        assertGreater(distance(twice, first), 0.05);
        return first;
      });
      assertGreater(distance(await oneStep(gpu, withDropout(0.5, 2), () => window, 3), first), 0.05);
      const evaluate = (dropout: number) =>
        withTrainer(gpu, withDropout(dropout, 1), (trainer) => trainer.evaluate(ALL));
      assertEquals(await evaluate(0.5), await evaluate(0));
    }),
);

/** Parameters before and after the first update, and the gradients. */
async function firstUpdate(gpu: Gpu, recipe: Recipe) {
  return await withTrainer(gpu, recipe, async (trainer) => {
    const { layout } = trainer.setup.trainables;
    const before = layout.gather((await trainer.readState()).parameters);
    const { gradients, metrics } = await stepOn(trainer, [packBatch(GROUPS[1]!, 64)]);
    const state = await trainer.readState();
    const after = layout.gather(state.parameters);
    return { before, after, m: layout.gather(state.m), gradients, metrics };
  });
}

gpuTest("LoRA+ multiplies the update of B alone", (gpu) =>
  withTiny(async (files) => {
    const settings = train({ weightDecay: 0, learningRate: 1e-3 });
    const plain = await firstUpdate(gpu, tinyRecipe(files, settings));
    const plus = await firstUpdate(gpu, tinyRecipe(files, { ...settings, adapter: { loraPlusRatio: 8 } }));
    for (const [name, before] of plain.before) {
      const [usual, faster] = [plain.after.get(name)!, plus.after.get(name)!];
      if (name.endsWith("lora_A.weight")) {
        assertEquals(faster, usual, name);
        continue;
      }
      faster.forEach((value, i) => {
        const update = usual[i]! - before[i]!;
        assertAlmostEquals(value - before[i]!, 8 * update, 5e-7, `${name}[${i}]`);
        // The first update of Adam is the learning rate, where the gradient is not tiny.
        if (Math.abs(plain.gradients.get(name)![i]!) > 1e-5) assertAlmostEquals(Math.abs(update), 1e-3, 2e-6);
      });
    }
  }));

gpuTest("rsLoRA scales by alpha / sqrt(rank)", (gpu) =>
  withTiny(async (files) => {
    const window = (t: number) => [packBatch(GROUPS[1]!, t)];
    const scaled = (adapter: RecipeChanges["adapter"]) =>
      oneStep(gpu, tinyRecipe(files, { adapter: { rank: 4, ...adapter } }), window);
    const rs = await scaled({ alpha: 6, rslora: true });
    assertEquals(rs, await scaled({ alpha: 12 }));
    assertGreater(distance(await scaled({ alpha: 6 }), rs), 0.1);
  }));

gpuTest(
  "gradients longer than train.clip are scaled down to it, shorter ones are not touched",
  (gpu) =>
    withTiny(async (files) => {
      const { metrics: { gradientNorm: norm } } = await firstUpdate(
        gpu,
        tinyRecipe(files, train({ clip: 0 })),
      );
      for (const [clip, factor] of [[0, 1], [norm * 2, 1], [norm / 4, 0.25]] as const) {
        const { m, gradients, metrics } = await firstUpdate(gpu, tinyRecipe(files, train({ clip })));
        const all = [...gradients.values()].flatMap((g) => [...g]);
        assertAlmostEquals(metrics.gradientNorm, Math.hypot(...all), 1e-5 * norm);
        // m after one step is (1 - beta1) times the gradient that the optimiser saw.
        const seen = [...m.values()].flatMap((g) => [...g]).map((v) => v / 0.1);
        seen.forEach((v, i) => assertAlmostEquals(v, factor * all[i]!, 1e-5 * norm));
        assertAlmostEquals(Math.hypot(...seen), factor * norm, 1e-4 * norm);
      }
    }),
);

gpuTest(
  "a gradient that is not finite is reported, and the optimiser writes nothing",
  (gpu) =>
    withTiny((files) =>
      withTrainer(gpu, tinyRecipe(files), async (trainer) => {
        const state = await trainer.readState();
        state.parameters[5] = NaN;
        trainer.setState(state.parameters);
        await trainer.step(0, [packBatch(GROUPS[1]!, 64)]);
        const [metrics] = await trainer.collect();
        assertEquals([metrics!.nonFinite, Number.isFinite(metrics!.loss)], [true, false]);
        const after = await trainer.readState();
        assertEquals(after.parameters, state.parameters);
        assert(after.m.every((v) => v === 0) && after.v.every((v) => v === 0));
      })
    ),
);
