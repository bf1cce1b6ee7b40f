// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertThrows } from "@std/assert";
import { builtins } from "../../plugins/mod.ts";
import { InputError } from "../../src/base/errors.ts";
import { Model } from "../../src/distill/inputs/models.ts";
import { Registry } from "../../src/registry/registry.ts";
import { SubsetEvaluator } from "../../src/shape/depth/subset_evaluator.ts";
import { SubsetProgram } from "../../src/shape/depth/subset_program.ts";
import { tinySample, withTiny } from "../distill/tiny_model.ts";
import { assertWithin, modelTest } from "../tensor/harness.ts";

const registry = new Registry().addAll(builtins);
const LAYERS = 3;
// One sample to a batch of 64, so that there are more batches than wait on the GPU at once.
const SAMPLES = Array.from({ length: 11 }, (_, i) => tinySample(33 + i, 7 + 2 * i, i + 1));

modelTest(
  "subsets measure the same whether samples lie in one batch or in many, in one chunk or several",
  (gpu) =>
    withTiny(async ({ teacher }) => {
      const model = await Model.open(teacher, { category: "weights" });
      const measured: number[][] = [];
      for (const [tokens, chunkRows] of [[512, 64], [64, 64]] as const) {
        const program = await SubsetProgram.create(gpu, model, registry, {
          tokens,
          chunkRows,
          positions: 64,
        });
        const evaluator = new SubsetEvaluator(program, LAYERS, SAMPLES);
        const found: number[] = [];
        // Heads and subsets in turn: what one leaves in the inputs must not reach the next.
        for (const kept of [[0, 2], [0, 1, 2], [1]]) {
          const { loss, kl } = await evaluator.measure(kept, "divergence");
          found.push(loss, kl!, (await evaluator.measure(kept, "loss")).loss);
        }
        found.push(...await evaluator.cosines());
        measured.push(found);
        program.destroy();
      }
      const [one, many] = measured as [number[], number[]];
      assertEquals(one[0], one[2]);
      assertEquals([one[4], many[4]], [0, 0]);
      assertWithin(many, one, 2e-6);
      model.close();
    }, { layers: LAYERS }),
);

modelTest("samples without a supervised token are refused", (gpu) =>
  withTiny(async ({ teacher }) => {
    const model = await Model.open(teacher, { category: "weights" });
    const sizes = { tokens: 64, chunkRows: 64, positions: 64 };
    const program = await SubsetProgram.create(gpu, model, registry, sizes);
    assertThrows(
      () => new SubsetEvaluator(program, LAYERS, [tinySample(20, 0, 1)]),
      InputError,
      "random: no token of the calibration samples is supervised",
    );
    program.destroy();
    model.close();
  }, { layers: LAYERS }));
