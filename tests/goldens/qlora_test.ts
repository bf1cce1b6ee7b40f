/** LoRA beside weights in 4 bits: ten steps of PyTorch, bitsandbytes' numbers and PEFT, and five with the other family of kernels. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals } from "@std/assert";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import { Trainer } from "../../src/distill/program/trainer.ts";
import { Model } from "../../src/distill/inputs/models.ts";
import { openStudent } from "../../src/distill/inputs/prepare.ts";
import { parseRecipe } from "../../src/distill/recipe/parse.ts";
import { setUp } from "../../src/distill/run/set_up.ts";
import { readPeftAdapter } from "../../src/formats/peft/peft.ts";
import { toFloat32 } from "../../src/formats/dtype.ts";
import { dequantizeNf4, restoreMagnitudes } from "../../src/formats/nf4.ts";
import { Registry } from "../../src/registry/registry.ts";
import { builtins } from "../../plugins/mod.ts";
import { Reader } from "../distill/logits.ts";
import { FAMILIES, maxDifference, testGpu } from "../tensor/harness.ts";
import { goldenArrays } from "./arrays.ts";
import { compareStep, goldenBatch, type GoldenStep, near, relative } from "./trajectory.ts";
import { sharedPath, sharedTest } from "../shared.ts";

const FOLDER = "goldens/quantised/qlora/";

const peftName = (name: string) => name.replace("base_model.model.", "");

async function follow(name: "nf4" | "nf4_dq", family: "subgroup8" | "tiled", most: number): Promise<void> {
  const golden = JSON.parse(await Deno.readTextFile(sharedPath(`${FOLDER}${name}/trajectory.json`)));
  const h = golden.hyper_parameters;
  const recipe = parseRecipe({
    teacher: { model: sharedPath("models/stories260K") },
    student: {
      model: "teacher",
      layers: golden.student_layers_kept,
      quantize: golden.double_quant ? "nf4-double" : "nf4",
    },
    data: { train: "golden", contextLength: h.seq_len },
    objective: [{ loss: "cross-entropy", weight: 1 - h.kd_ratio }, {
      loss: "forward-kl",
      weight: h.kd_ratio,
    }],
    adapter: { type: "lora", rank: h.r, alpha: h.lora_alpha },
    train: {
      steps: h.steps,
      tokensPerMicroBatch: h.seq_len * h.micro_batch,
      learningRate: h.lr,
      schedule: "cosine",
      warmup: h.warmup_steps,
      weightDecay: h.weight_decay,
      clip: h.max_grad_norm,
    },
  });
  const teacher = await Model.open(recipe.teacher.model, { category: "teacher weights" });
  const student = await openStudent(recipe);
  const gpu = await testGpu(family);
  let trainer: Trainer | undefined;
  try {
    await compareBase(name, student);
    const setup = setUp({ recipe, teacher, student }, new Registry().addAll(builtins));
    trainer = await Trainer.create(gpu, setup, planTraining(setup, gpu.description));
    assertEquals(gpu.allocatedBytes, trainer.planned.plan.totalBytes, "allocated bytes are the planned ones");
    const { layout } = setup.trainables;
    const start = new Float32Array(layout.total);
    const { tensors: initial } = await readPeftAdapter(sharedPath(`${FOLDER}${name}/adapter_init`));
    layout.scatter(start, new Map([...initial].map(([n, t]) => [n, t.data as Float32Array])));
    trainer.setState(start);
    const arrays = await goldenArrays(`${FOLDER}${name}/batches.safetensors`);
    const perStep = arrays.get("ids")!.length / h.steps;
    for (const [step, expected] of (golden.steps as GoldenStep[]).slice(0, most).entries()) {
      const part = (key: string) =>
        (arrays.get(key) as Int32Array).subarray(step * perStep, (step + 1) * perStep);
      await trainer.step(step, [goldenBatch(part("ids"), part("labels"), h.seq_len)]);
      const where = `step ${step}`;
      compareStep((await trainer.collect())[0]!, expected, where);
      if (step === 0 || (step === 4 && name === "nf4")) {
        const gradients = await goldenArrays(`${FOLDER}${name}/grads_step${step}.safetensors`);
        const actual = await trainer.readGradients();
        assertEquals([...actual.keys()].sort(), [...gradients.keys()].map(peftName).sort());
        for (const [key, g] of gradients) {
          const { l2, norm, max } = relative(actual.get(peftName(key))!, g);
          if (norm === 0 ? max > 2e-6 : l2 > 1e-4 * norm) {
            throw new Error(`${where} gradient of ${key} is off by ${l2 / norm}`);
          }
        }
      }
    }
    const isWhole = most >= golden.steps.length;
    const end = await goldenArrays(`${FOLDER}${name}/adapter_final/adapter_model.safetensors`);
    const { parameters } = await trainer.readState();
    const actual = layout.gather(parameters);
    const off = Math.hypot(...[...end].map(([key, p]) => relative(actual.get(peftName(key))!, p).l2));
    if (isWhole) near(off, 0, 3e-4, "distance to the final adapter");

    const logits = await goldenArrays(`${FOLDER}${name}/logits.safetensors`);
    const ids = (logits.get("ids") as Int32Array).subarray(0, h.seq_len);
    for (
      const [which, adapted] of [["base_logits", undefined], ["final_logits", {
        ...setup,
        parameters,
      }]] as const
    ) {
      if (adapted && !isWhole) continue;
      using reader = await Reader.open(gpu, student, h.seq_len, adapted);
      const worst = maxDifference(await reader.logits(ids), logits.get(which)!);
      near(worst, 0, adapted ? 1e-3 : 2e-4, `difference of ${which}`);
    }
  } finally {
    trainer?.destroy();
    teacher.close();
    student.close();
  }
  assertEquals(gpu.allocatedBytes, 0);
}

/** The weights that the run is over: those of the reference, quantised layer by layer; all others as they were. */
async function compareBase(name: "nf4" | "nf4_dq", student: Model): Promise<void> {
  const base = await goldenArrays(`${FOLDER}${name}/base_nf4.safetensors`);
  const packed = [...base.keys()].filter((key) => key.endsWith(".packed"));
  const quantised = [...student.tensors().keys()].filter((tensor) =>
    student.gpuDtype(student.storedName(tensor)).startsWith("nf4")
  );
  assertEquals(quantised.map((tensor) => tensor.replace(".weight", ".packed")).sort(), packed.sort());
  for (const tensor of quantised) {
    const of = (part: string) => base.get(tensor.replace("weight", part))!;
    const { data, shape } = await student.read(tensor);
    const magnitudes = name === "nf4" ? of("absmax") as Float32Array<ArrayBuffer> : restoreMagnitudes({
      codes: of("absmax_codes") as Uint8Array<ArrayBuffer>,
      factors: of("absmax2") as Float32Array<ArrayBuffer>,
      offset: of("offset")[0]!,
    });
    const packed = of("packed") as Uint8Array<ArrayBuffer>;
    const values = dequantizeNf4({ packed, magnitudes }, 0, shape[0]! * shape[1]!);
    near(maxDifference(toFloat32("f32", data), values), 0, name === "nf4" ? 0 : 1e-6, tensor);
  }
}

for (const name of ["nf4", "nf4_dq"] as const) {
  for (const family of FAMILIES) {
    // Up to the second gradients that the golden has; one family shows where ten steps lead, as does trajectory_test.ts.
    const most = family === "tiled" ? 5 : 10;
    sharedTest(
      `QLoRA follows PyTorch and PEFT for ${most} steps: ${name} [${family}]`,
      () => follow(name, family, most),
    );
  }
}
