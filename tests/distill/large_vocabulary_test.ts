/** A vocabulary of 151,936 tokens: what the head must never hold whole. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertGreaterOrEqual, assertLess } from "@std/assert";
import { Trainer } from "../../src/distill/program/trainer.ts";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import { openGpu } from "../../src/gpu/device.ts";
import type { Plan } from "../../src/tensor/plan.ts";
import { packBatch } from "../../src/text/packing.ts";
import { tinyRecipe, tinySample, tinySetup, withTiny } from "./tiny_model.ts";

const VOCABULARY = 151_936;
/** Tokens that are planned for, and so many that steps run over. */
const [TOKENS, FEW] = [1024, 128];

/** Most bytes of a buffer that is no weight, and of what a kernel binds. */
function largest(plan: Plan): number {
  const buffers = plan.buffers.filter(({ storage }) => storage?.kind !== "weight");
  const bindings = [...plan.blocks.values()].flatMap(({ dispatches }) =>
    dispatches.flatMap((d) => d.bindings)
  );
  return Math.max(...[...buffers, ...bindings].map(({ bytes }) => bytes));
}

Deno.test({
  name: "a step over 151,936 tokens runs in the bytes that were planned, far under 1 GB",
  sanitizeResources: false,
  sanitizeOps: false,
  fn: () =>
    withTiny(async (files) => {
      const recipe = tinyRecipe(files, {
        student: { model: "teacher" },
        data: { train: files.train, contextLength: TOKENS },
        train: { tokensPerMicroBatch: TOKENS },
      });
      const few = { ...recipe, train: { ...recipe.train, tokensPerMicroBatch: FEW } };
      using setup = await tinySetup(recipe);
      const gpu = await openGpu();
      try {
        const { plan, choices } = planTraining(setup, gpu.description);
        console.log(`planned: ${[...plan.bytesByCategory].map(([k, v]) => `${k} ${v}`).join(", ")}`);
        assertEquals(choices.tokens, TOKENS);
        assertLess(plan.totalBytes, 1e9);
        // Half of what [T, V] would take in f16, in any block: neither a tensor nor a window into one.
        const limit = TOKENS * VOCABULARY;
        assertLess(largest(plan), limit);
        // Were the head not cut, this would show it.
        const uncut = { ...setup, recipe: { ...recipe, train: { ...recipe.train, headChunk: TOKENS } } };
        const roomy = { ...gpu.description, maxBindingSize: 2 ** 31 - 4, maxBufferSize: 2 ** 31 - 4 };
        assertGreaterOrEqual(largest(planTraining(uncut, roomy).plan), 4 * limit);

        const short = { ...setup, recipe: few };
        const planned = planTraining(short, gpu.description);
        const trainer = await Trainer.create(gpu, short, planned);
        trainer.setState((await setup.trainables.initialValues(1)).trained);
        const ids = tinySample(FEW, FEW - 1, 1);
        // Over the whole vocabulary, both ends included.
        ids.ids.forEach((id, i) => ids.ids[i] = i < 2 ? i * (VOCABULARY - 1) : id * 757 % VOCABULARY);
        for (const step of [0, 1]) {
          await trainer.step(step, [packBatch([ids], FEW)]);
          const [metrics] = await trainer.collect();
          const { "cross-entropy": ce, "forward-kl": kl } = metrics!.losses;
          // Guessing costs log V = 11.9. Teacher and student are the same model until the first update.
          assert(ce! > 11.9 && ce! < 20 && metrics!.gradientNorm > 0, `cross-entropy ${ce}`);
          assert(
            step === 0 ? Math.abs(kl!) < 1e-6 : kl! > 1e-3 && kl! < 1,
            `forward KL ${kl} of step ${step}`,
          );
          assertEquals([metrics!.nonFinite, metrics!.supervisedTokens], [false, FEW - 1]);
          assertEquals([gpu.allocatedBytes, gpu.peakBytes], [
            planned.plan.totalBytes,
            planned.plan.totalBytes,
          ]);
        }
        trainer.destroy();
        assertEquals(gpu.allocatedBytes, 0);
      } finally {
        gpu.destroy();
      }
    }, {
      layers: 1,
      hiddenSize: 64,
      vocabularySize: VOCABULARY,
      contextLength: TOKENS,
      tiedHead: true,
      dtype: "f16",
    }),
});
