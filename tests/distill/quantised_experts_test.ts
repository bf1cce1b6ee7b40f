/** Experts that are quantised when they are loaded: their values, what is computed with them, adapters on them, and which stay as they are. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { writeModelFolder } from "../../src/distill/export/exports.ts";
import { computedIdentity, modelIdentity } from "../../src/distill/inputs/identity.ts";
import { Model } from "../../src/distill/inputs/models.ts";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import { toFloat32 } from "../../src/formats/dtype.ts";
import { dequantizeNf4, quantizeNf4 } from "../../src/formats/nf4.ts";
import type { QuantizeDtype } from "../../src/formats/quantised/quantiser.ts";
import { DEFAULT_DEVICE } from "../../src/gpu/description.ts";
import { tinyConfig } from "../models/tiny_configs.ts";
import { assertWithin, maxDifference, modelTest } from "../tensor/harness.ts";
import { Reader } from "./logits.ts";
import { TINY_VOCABULARY, tinyRecipe, tinySample, tinySetup, withTiny } from "./tiny_model.ts";
import { runHere } from "./tiny_run.ts";

const CONFIG = tinyConfig("Qwen3MoeForCausalLM", TINY_VOCABULARY);
/** 3 experts of [20, 32] and [32, 20]: 640 values each, whole blocks of 64. */
const TINY = { config: CONFIG };
const EXPERT = /experts\.\d\.\w+_proj\.weight$/;

modelTest(
  "a model with quantised experts computes what its dequantised weights say",
  (gpu) =>
    withTiny(async ({ teacher, folder }) => {
      const tokens = tinySample(21, 1, 3).ids;
      const logitsOf = async (model: Model) => {
        using reader = await Reader.open(gpu, model, 32);
        return (await reader.logits(tokens)).slice();
      };
      const whole = await Model.open(teacher, { category: "weights" });
      for (const quantize of ["nf4", "q8_0"] as const) {
        const model = await Model.open(teacher, { category: "weights", quantize });
        // Rows of 20 are no blocks of Q8_0.
        const isQuantised = (name: string) =>
          EXPERT.test(name) && (quantize === "nf4" || !name.includes("down_proj"));
        for (const name of model.tensors().keys()) {
          if (EXPERT.test(name)) {
            assertEquals(model.gpuDtype(name), isQuantised(name) ? quantize : "f32", name);
          }
        }
        assert(model.hasQuantisedExperts);
        assert(await computedIdentity(model) !== await modelIdentity(model));
        const found = await logitsOf(model);
        await writeModelFolder(`${folder}/${quantize}`, model);
        const written = await Model.open(`${folder}/${quantize}`, { category: "weights" });
        assertWithin(found, await logitsOf(written), 2e-4, `logits with ${quantize}`);
        assert(maxDifference(found, await logitsOf(whole)) > 1e-3, `${quantize} changes nothing`);
        for (const opened of [model, written]) opened.close();
      }
      whole.close();
    }, TINY),
);

Deno.test("experts are quantised like linear layers, but where they are no whole blocks", () =>
  withTiny(async ({ teacher }) => {
    const model = await Model.open(teacher, { category: "weights", quantize: "nf4" });
    const name = "model.layers.0.mlp.experts.2.up_proj.weight";
    const source = (await model.source.read(name)).data as Float32Array;
    const { dtype, data } = await model.read(name);
    assertEquals(toFloat32(dtype, data), dequantizeNf4(quantizeNf4(source), 0, source.length));
    model.close();
    // Its blocks are 2048 values.
    const double = await Model.open(teacher, { category: "weights", quantize: "nf4-double" });
    assertEquals([double.gpuDtype(name), double.hasQuantisedExperts], ["f32", false]);
    double.close();
  }, TINY));

Deno.test("a run trains adapters on quantised experts in as many bytes as planned, beside a teacher that is not", () =>
  withTiny(async (files) => {
    const recipe = (quantize?: QuantizeDtype) =>
      tinyRecipe(files, {
        student: { model: "teacher", ...(quantize ? { quantize } : {}) },
        objective: [{ loss: "cross-entropy", weight: 0.5 }, { loss: "forward-kl", weight: 0.5 }],
        adapter: { targets: ["q_proj", "experts"] },
        train: { steps: 2, evaluateEvery: 100 },
        output: { merged: true },
      });
    const bytes = async (quantize?: QuantizeDtype) => {
      using setup = await tinySetup(recipe(quantize));
      return planTraining(setup, DEFAULT_DEVICE).plan.bytesByCategory.get("student weights") ?? 0;
    };
    // All that is shared with the teacher counts there.
    const [shared, own] = [await bytes(), await bytes("nf4")];
    assertEquals(shared, 0);
    assert(own >= 3 * 3 * 640 / 64 * 36, `${own} bytes`);
    const result = await runHere(recipe("nf4"), `${files.folder}/run`);
    assertEquals(result.peakBytes.allocated, result.peakBytes.planned);
    assert(result.heldOut.before !== result.heldOut.teacher, "the student is the teacher");
    const state = JSON.parse(
      await Deno.readTextFile(`${files.folder}/run/checkpoints/step-000002/state.json`),
    );
    assertEquals(state.identity["student's experts"], "nf4");
  }, TINY));
