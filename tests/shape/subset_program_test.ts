// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertThrows } from "@std/assert";
import { builtins } from "../../plugins/mod.ts";
import { ShapeError } from "../../src/base/errors.ts";
import { Model, uploadWeights } from "../../src/distill/inputs/models.ts";
import { writeBatch } from "../../src/distill/program/metrics/measure.ts";
import { traceModel } from "../../src/distill/program/traced_model.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { DEFAULT_DEVICE } from "../../src/gpu/description.ts";
import { Architecture } from "../../src/models/architecture.ts";
import { layerGate, layerName, type ModelContext } from "../../src/models/context.ts";
import { Registry } from "../../src/registry/registry.ts";
import { planSubsets, SubsetProgram } from "../../src/shape/depth/subset_program.ts";
import { combinations, without } from "../../src/shape/depth/subsets.ts";
import { compile } from "../../src/tensor/executable.ts";
import type { Tensor } from "../../src/tensor/graph.ts";
import { add } from "../../src/tensor/ops/combine.ts";
import { plan, Program } from "../../src/tensor/plan.ts";
import { packBatch } from "../../src/text/packing.ts";
import { TINY_VOCABULARY, tinySample, withTiny } from "../distill/tiny_model.ts";
import { tinyConfig } from "../models/tiny_configs.ts";
import { modelTest } from "../tensor/harness.ts";

const LAYERS = 4;
const SIZES = { tokens: 64, chunkRows: 64, positions: 40 };
const BATCH = packBatch([tinySample(37, 20, 1), tinySample(20, 5, 2)], SIZES.tokens);
const registry = new Registry().addAll(builtins);

/** Every subset of the layers, the empty one left out. */
const subsets = Array.from({ length: LAYERS }, (_, i) => [...combinations(LAYERS, i + 1)]).flat();

/** Plan of the layers of a model alone, as every other program traces them. */
function planPlain(model: Model, gpu: Gpu) {
  const program = new Program();
  const graph = program.block("decoder");
  const { hidden } = traceModel(graph, "model", model, SIZES.tokens, { length: SIZES.positions });
  graph.output("hidden", hidden);
  graph.input("labels", [SIZES.tokens], "i32");
  return plan(program, gpu.description);
}

/** Final hidden states of a model whose other layers are really cut away. */
async function cutHidden(gpu: Gpu, path: string, kept: readonly number[]): Promise<Float32Array> {
  const model = await Model.open(path, { category: "weights", layers: kept });
  const planned = planPlain(model, gpu);
  const weights = await uploadWeights(gpu, planned, [model]);
  const executable = await compile(gpu, planned, { weights });
  executable.poison();
  writeBatch(executable, BATCH, { labels: BATCH.label, counts: [] });
  executable.run("decoder");
  const { data } = (await executable.read(["hidden"], "decoder")).get("hidden")!;
  executable.destroy();
  weights.forEach((buffer) => buffer.destroy());
  model.close();
  return data as Float32Array;
}

modelTest(
  "a subset of layers gives the bits of a model that is cut to it",
  (gpu) =>
    withTiny(async ({ teacher }) => {
      const model = await Model.open(teacher, { category: "weights" });
      const program = await SubsetProgram.create(gpu, model, registry, SIZES);
      program.write(BATCH);
      for (const kept of subsets) {
        await program.run(kept);
        assertEquals(await program.hidden(), await cutHidden(gpu, teacher, kept), `kept ${kept}`);
      }
      program.destroy();
      model.close();
    }, { layers: LAYERS }),
);

modelTest(
  "nothing of a layer that is off reaches the others, whether its kernels run or not",
  (gpu) =>
    withTiny(async ({ teacher }) => {
      const model = await Model.open(teacher, { category: "weights" });
      const { planned } = planSubsets(model, registry, SIZES, gpu.description);
      const weights = await uploadWeights(gpu, planned, [model]);
      const executable = await compile(gpu, planned, { weights });
      writeBatch(executable, BATCH, { labels: BATCH.label, counts: [] });
      const name = `${model.specs.prefix}model.layers.1.mlp.down_proj.weight`;
      executable.write(name, new Float32Array(planned.storages.get(name)!.bytes / 4).fill(NaN));
      const hidden = async () => (await executable.read(["hidden"])).get("hidden")!.data;
      const expected = await cutHidden(gpu, teacher, [0, 2, 3]);
      for (const skipped of [[], [1]]) {
        // What kernels left out did not write is NaN then, too.
        executable.poison();
        for (let l = 0; l < LAYERS; l++) executable.setScalar(layerGate("model", l), Number(l !== 1));
        executable.run("decoder", new Set(skipped.map((l) => layerName("model", l))));
        assertEquals(await hidden(), expected);
      }
      executable.setScalar(layerGate("model", 1), 1);
      executable.run("decoder");
      assert((await hidden()).some(Number.isNaN), "the layer is not what it was made");
      executable.destroy();
      weights.forEach((buffer) => buffer.destroy());
      model.close();
    }, { layers: LAYERS }),
);

/** Kernels launched while `work` runs. */
async function launches(work: () => Promise<void>): Promise<number> {
  const passes = GPUComputePassEncoder.prototype;
  const { dispatchWorkgroups } = passes;
  let count = 0;
  passes.dispatchWorkgroups = function (...groups) {
    count++;
    return dispatchWorkgroups.apply(this, groups);
  };
  try {
    await work();
  } finally {
    passes.dispatchWorkgroups = dispatchWorkgroups;
  }
  return count;
}

modelTest("a subset costs what its layers cost", (gpu) =>
  withTiny(async ({ teacher }) => {
    const model = await Model.open(teacher, { category: "weights" });
    const { planned } = planSubsets(model, registry, SIZES, gpu.description);
    const program = await SubsetProgram.create(gpu, model, registry, SIZES);
    program.write(BATCH);
    for (const kept of subsets) {
      const off = new Set(without(LAYERS, kept).map((l) => layerName("model", l)));
      const runs = planned.blocks.get("decoder")!.dispatches.filter((d) => !off.has(d.layer ?? ""));
      assertEquals(await launches(() => program.run(kept)), runs.length, `kept ${kept}`);
      const cut = await Model.open(teacher, { category: "weights", layers: kept });
      const own = planPlain(cut, gpu).blocks.get("decoder")!.dispatches;
      // One choice for each layer of the whole model, and the hidden states handed on to the head.
      assertEquals(runs.length, own.length + LAYERS + 1, `kept ${kept}`);
      const flops = (dispatches: typeof own) => dispatches.reduce((sum, d) => sum + d.flops, 0);
      assertEquals(flops(runs), flops(own) + (LAYERS + 1) * SIZES.tokens * model.config.hiddenSize);
      cut.close();
    }
    program.destroy();
    model.close();
  }, { layers: LAYERS }));

Deno.test("a model whose layers read more of each other than their outputs is refused", () =>
  withTiny(async ({ teacher }) => {
    const model = await Model.open(teacher, { category: "weights" });
    const { family, config } = model.architecture;
    const decoder = (ctx: ModelContext) => {
      let first: Tensor | undefined;
      const layer = ctx.layer.bind(ctx);
      ctx.layer = (index, x, body) =>
        layer(index, x, (x) => {
          const y = body(x);
          first ??= add(y, x);
          return index === 0 ? y : add(y, first);
        });
      return family.decoder(ctx, config);
    };
    const sharing: Model = Object.create(model, {
      architecture: { value: new Architecture({ ...family, decoder }, config) },
    });
    assertThrows(
      () => planSubsets(sharing, registry, SIZES, DEFAULT_DEVICE),
      ShapeError,
      "model/layers.0 cannot be left out: others read 2 of its values",
    );
    planSubsets(model, registry, SIZES, DEFAULT_DEVICE);
    model.close();
  }));

Deno.test("layers of a family with other names show what they change", () =>
  withTiny(async ({ teacher }) => {
    const model = await Model.open(teacher, { category: "weights" });
    const { planned } = planSubsets(model, registry, SIZES, DEFAULT_DEVICE);
    const outputs = [...planned.blocks.values()].flatMap(({ outputs }) => [...outputs.keys()]);
    assertEquals(outputs.filter((name) => name.startsWith("cosine ")), ["cosine 0", "cosine 1"]);
    model.close();
  }, { config: tinyConfig("GPTNeoXForCausalLM", TINY_VOCABULARY) }));
