/**
 * However samples are laid out, their loss and its gradient are the same: alone, packed, with filler between none and most, in any order,
 * split over micro-batches at any place, and whatever the chunks of the head. Lengths, targets and layouts are drawn; the seed is printed,
 * and given back with SEED=... in the environment.
 */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertGreater } from "@std/assert";
import { permutation, philox4x32 } from "../../src/base/random.ts";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import { Trainer } from "../../src/distill/program/trainer.ts";
import type { Recipe } from "../../src/distill/recipe/recipe.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { BatchStream } from "../../src/text/batch_stream.ts";
import type { EncodedSample } from "../../src/text/encode.ts";
import { packBatch, type PackedBatch, planBatches } from "../../src/text/packing.ts";
import { modelTest, randomArray } from "../tensor/harness.ts";
import { tinyRecipe, tinySample, tinySetup, withTiny } from "./tiny_model.ts";

/** Rounding of sums of a few hundred f32 in another order. */
const ROUNDING = 1e-5;
const TRIALS = 3;
/** Longest sample, and so the smallest stream that holds any. */
const LONGEST = 48;

/** Whole numbers from 0 to `below`, drawn from a seed. */
function draws(seed: number): (below: number) => number {
  let i = 0;
  return (below) => philox4x32([i++, 0, 0, 7], [seed, 0])[0] % below;
}

/** Samples of 2 to 48 tokens, of which at least one is learnt. */
function someSamples(draw: (below: number) => number): EncodedSample[] {
  return Array.from({ length: 3 + draw(5) }, () => {
    const length = 2 + draw(LONGEST - 1);
    return tinySample(length, 1 + draw(length - 1), 1 + draw(1 << 20));
  });
}

/** What a window of micro-batches comes to at fixed parameters. */
interface Found {
  readonly losses: Readonly<Record<string, number>>;
  readonly gradient: Float32Array;
  readonly targets: number;
}

/** A trainer whose parameters are random and the same for each question. */
async function withTrainer(
  gpu: Gpu,
  recipe: Recipe,
  work: (ask: Ask, size: number) => Promise<void>,
): Promise<void> {
  using setup = await tinySetup(recipe);
  const trainer = await Trainer.create(gpu, setup, planTraining(setup, gpu.description));
  try {
    trainer.executable.poison();
    await work(async (window) => {
      const { layout } = trainer.setup.trainables;
      const flat = new Float32Array(layout.total);
      layout.scatter(
        flat,
        new Map(layout.parameters.map(({ name, count }, i) => [name, randomArray(count, i + 1, 0.3)])),
      );
      trainer.setState(flat);
      await trainer.step(0, window);
      const gradient = Float32Array.from(
        [...(await trainer.readGradients()).values()].flatMap((g) => [...g]),
      );
      const [{ losses, supervisedTokens, nonFinite }] = await trainer.collect() as [
        Awaited<ReturnType<Trainer["collect"]>>[number],
      ];
      assertEquals(nonFinite, false);
      return { losses, gradient, targets: supervisedTokens };
    }, trainer.planned.choices.tokens);
  } finally {
    trainer.destroy();
  }
}

type Ask = (window: readonly PackedBatch[]) => Promise<Found>;

function distance(a: Found, b: Found): number {
  return Math.hypot(...a.gradient.map((value, i) => value - b.gradient[i]!)) / Math.hypot(...b.gradient);
}

function assertSame(found: Found, expected: Found, what: string): void {
  assertEquals(found.targets, expected.targets, what);
  for (const [name, loss] of Object.entries(expected.losses)) {
    assertAlmostEquals(found.losses[name]!, loss, ROUNDING * Math.max(loss, 1e-3), `${what}: ${name}`);
  }
  const far = distance(found, expected);
  assert(far <= ROUNDING, `${what}: gradients differ by ${far}`);
}

/** Ways to lay samples out in streams of a size. */
function layouts(
  samples: readonly EncodedSample[],
  size: number,
  draw: (below: number) => number,
): Record<string, PackedBatch[]> {
  const lengths = samples.map(({ ids }) => ids.length);
  const seed = draw(1 << 30);
  const pack = (plan: readonly (readonly number[])[]) =>
    plan.map((batch) => packBatch(batch.map((i) => samples[i]!), size));
  const order = permutation(samples.length, seed, 0);
  const stream = new BatchStream(samples, { tokensPerBatch: size, seed });
  return {
    "one at a time": pack([...order].map((i) => [i])),
    "packed tightly": pack(planBatches(lengths, order, size)),
    "packed in order": pack(planBatches(lengths, order, size, 1)),
    // An end at any place, which leaves filler behind.
    "packed loosely": pack(
      planBatches(lengths, order, size, 1).flatMap((batch) => {
        const cut = draw(batch.length + 1);
        return [batch.slice(0, cut), batch.slice(cut)].filter(({ length }) => length > 0);
      }),
    ),
    "as trained": stream.plan(0).map((_, i) => stream.batchAt(0, i)),
  };
}

modelTest(
  "the loss and its gradient do not change with filler, packing, order or chunks",
  (gpu) =>
    withTiny(async (files) => {
      const given = Deno.permissions.querySync({ name: "env", variable: "SEED" }).state === "granted"
        ? Deno.env.get("SEED")
        : undefined;
      const first = given === undefined ? Date.now() % 2 ** 31 : Number(given);
      const seeds = Array.from({ length: TRIALS }, (_, i) => first + i);
      console.log(`seeds ${seeds.join(", ")}`);
      const expected: Found[] = [];
      for (const [tokensPerMicroBatch, headChunk] of [[64, 64], [256, 128]] as const) {
        const recipe = tinyRecipe(files, {
          data: { contextLength: LONGEST } as never,
          train: { tokensPerMicroBatch, headChunk },
        });
        await withTrainer(gpu, recipe, async (ask, size) => {
          assertEquals(size, tokensPerMicroBatch);
          for (const [trial, seed] of seeds.entries()) {
            const draw = draws(seed);
            const samples = someSamples(draw);
            for (const [name, window] of Object.entries(layouts(samples, size, draw))) {
              // Mostly filler, once: it costs as much as tokens.
              if (window.length > 3 && size > 64 && trial > 0) continue;
              const found = await ask(window);
              expected[trial] ??= found;
              assertSame(found, expected[trial], `seed ${seed}, ${name}, streams of ${size}`);
            }
          }
          // A sample that sees the one before it, and a label that is one too late, are noticed.
          const [a, b] = [tinySample(20, 9, 1), tinySample(20, 9, 2)];
          const batch = packBatch([a, b], size);
          const good = await ask([batch]);
          assertGreater(distance(await ask([{ ...batch, kvStart: new Int32Array(size) }]), good), 1e-3);
          const late = {
            ...batch,
            label: Int32Array.from(batch.label, (_, t) => batch.label[t - 1] ?? -100),
          };
          assertGreater(distance(await ask([late]), good), 1e-3);
        });
      }
    }),
);
