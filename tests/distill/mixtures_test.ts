/** Mixtures of LoRAs in whole models: gates of packed samples, gradients, generation, runs and what can be made of them. */
// @ts-types="../../types/std_assert.d.ts"
import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertGreater,
  assertLess,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { readCheckpoint } from "../../src/distill/checkpoint/checkpoint.ts";
import { setUp } from "../../src/distill/run/set_up.ts";
import { evaluateModel } from "../../src/distill/evaluate/evaluate_model.ts";
import { exportRun } from "../../src/distill/export/export_run.ts";
import { generateTexts } from "../../src/distill/generate/generate_texts.ts";
import { Generator } from "../../src/distill/generate/generator.ts";
import { FLAT } from "../../src/distill/trained/parameters.ts";
import {
  checkPrompts,
  promptRanges,
  streamPrompts,
  writePrompts,
} from "../../src/distill/program/fed/prompt_features.ts";
import type { Recipe } from "../../src/distill/recipe/recipe.ts";
import { Trainer } from "../../src/distill/program/trainer.ts";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import { InputError } from "../../src/base/errors.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { toFloat32 } from "../../src/formats/dtype.ts";
import { openFile } from "../../src/formats/files.ts";
import { readPeftAdapter } from "../../src/formats/peft/peft.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import { Registry } from "../../src/registry/registry.ts";
import { compile } from "../../src/tensor/executable.ts";
import { byteLength } from "../../src/tensor/graph.ts";
import { plan, Program } from "../../src/tensor/plan.ts";
import { uploadWeights } from "../../src/distill/inputs/models.ts";
import { packBatch } from "../../src/text/packing.ts";
import { builtins } from "../../plugins/mod.ts";
import { assertWithin, modelTest, randomArray } from "../tensor/harness.ts";
import { argmax, Reader } from "./logits.ts";
import {
  type RecipeChanges,
  type TinyFiles,
  tinyRecipe,
  tinySample,
  tinySetup,
  withTiny,
} from "./tiny_model.ts";
import { runHere } from "./tiny_run.ts";

const INSTANCE: RecipeChanges = {
  adapter: { type: "instance-gated-lora", rank: 3, options: { experts: 4 } },
  output: { merged: false },
};
const SHAPE: RecipeChanges = { adapter: { type: "shape-gated-lora", rank: 3 } };

/** Three samples with prompts of 9, 21 and 2 tokens, and filler behind them. */
const SAMPLES = [tinySample(20, 11, 1), tinySample(27, 6, 2), tinySample(9, 7, 3)];

/** Random values of everything that is trained, in the flat layout. */
function randomParameters({ layout }: Trainer["setup"]["trainables"]): Float32Array {
  const flat = new Float32Array(layout.total);
  layout.scatter(flat, new Map(layout.parameters.map((p, i) => [p.name, randomArray(p.count, i + 1, 0.3)])));
  return flat;
}

async function withTrainer<T>(gpu: Gpu, recipe: Recipe, fn: (trainer: Trainer) => Promise<T>): Promise<T> {
  using setup = await tinySetup(recipe);
  const trainer = await Trainer.create(gpu, setup, planTraining(setup, gpu.description));
  try {
    trainer.setState(randomParameters(setup.trainables));
    return await fn(trainer);
  } finally {
    trainer.destroy();
  }
}

Deno.test("promptRanges() ends each prompt at the position that predicts the first target", () => {
  const { start, end } = promptRanges(packBatch(SAMPLES, 64));
  assertEquals([...start.subarray(0, 4)], [0, 20, 47, 0]);
  assertEquals([...end.subarray(0, 4)], [9, 41, 49, 0]);
  assert(end.subarray(3).every((t) => t === 0));
});

modelTest(
  "streamPrompts() gives each position the mean embedding of its sample's prompt",
  (gpu) =>
    withTiny(async (files) => {
      using setup = await tinySetup(tinyRecipe(files, { student: { model: "teacher" } }));
      const { student: model } = setup;
      const program = new Program();
      const graph = program.block("test");
      graph.output("prompts", streamPrompts(graph, model, graph.input("tokens", [64], "i32")));
      const planned = plan(program, gpu.description);
      const weights = await uploadWeights(gpu, planned, [model]);
      const executable = await compile(gpu, planned, { weights });
      const batch = packBatch(SAMPLES, 64);
      executable.poison();
      executable.write("tokens", batch.tokens);
      writePrompts(executable, batch);
      executable.run("test");
      const found = (await executable.read(["prompts"], "test")).get("prompts")!.data as Float32Array;
      executable.destroy();
      for (const buffer of weights.values()) buffer.destroy();

      const { data, dtype } = await model.read("model.embed_tokens.weight");
      const [table, H] = [toFloat32(dtype, data), model.config.hiddenSize];
      const expected = new Float64Array(64 * H);
      batch.segment.forEach((s, t) => {
        if (s < 0) return;
        const { ids, supervised } = SAMPLES[s]!;
        const prompt = [...ids.subarray(0, supervised.indexOf(1))];
        for (let h = 0; h < H; h++) {
          expected[t * H + h] = prompt.reduce((sum, id) => sum + table[id * H + h]!, 0) / prompt.length;
        }
      });
      assertWithin(found, expected, 1e-6);
    }),
);

modelTest(
  "the gates of samples packed in a stream are those of each alone",
  (gpu) =>
    withTiny((files) =>
      withTrainer(gpu, tinyRecipe(files, INSTANCE), async (trainer) => {
        const packed = await trainer.evaluate(SAMPLES);
        let sum = 0;
        for (const sample of SAMPLES) {
          const { losses, tokens } = await trainer.evaluate([sample]);
          sum += losses["cross-entropy"]! * tokens;
        }
        assertAlmostEquals(packed.losses["cross-entropy"]!, sum / packed.tokens, 1e-5);
        // Another prompt in the first sample's place: gates that are not those of the sample would be seen.
        const { layout } = trainer.setup.trainables;
        const closed = randomParameters(trainer.setup.trainables);
        const { offset, count } = layout.get("shared.instance_router.weight");
        closed.subarray(offset, offset + count).reverse();
        trainer.setState(closed);
        const other = await trainer.evaluate(SAMPLES);
        assertGreater(Math.abs(other.losses["cross-entropy"]! - packed.losses["cross-entropy"]!), 1e-3);
      })
    ),
);

for (const [name, changes] of [["instance-gated-lora", INSTANCE], ["shape-gated-lora", SHAPE]] as const) {
  modelTest(`${name}: the first step's gradients are the slopes of the loss`, (gpu) =>
    withTiny((files) => {
      // Noise is drawn while training alone; what is measured has none.
      const options = {
        ...changes.adapter?.options,
        ...(name === "shape-gated-lora" ? { noise: false } : {}),
      };
      const recipe = tinyRecipe(files, {
        ...changes,
        adapter: { ...changes.adapter, options },
        objective: [{ loss: "cross-entropy" }],
        train: { activationCheckpointing: "on" },
      });
      return withTrainer(gpu, recipe, async (trainer) => {
        const { trainables } = trainer.setup;
        const flat = randomParameters(trainables);
        await trainer.step(0, [packBatch(SAMPLES, trainer.planned.choices.tokens)]);
        const gradients = await trainer.readGradients();
        await trainer.collect();
        const lossAt = async (name: string, direction: Float32Array, h: number) => {
          const moved = flat.slice();
          const { offset } = trainables.layout.get(name);
          direction.forEach((d, i) => moved[offset + i]! += h * d);
          trainer.setState(moved);
          return (await trainer.evaluate(SAMPLES)).losses["cross-entropy"]!;
        };
        const routers = [...gradients.keys()].filter((name) => name.startsWith("shared."));
        assertEquals(routers.length, name === "shape-gated-lora" ? 2 : 1);
        const path = "model.layers.1.mlp.down_proj";
        const factors = [...gradients.keys()].filter((name) => name.startsWith(path));
        assertEquals(factors.length, 2);
        for (const parameter of [...routers, ...factors]) {
          const gradient = gradients.get(parameter)!;
          const norm = Math.hypot(...gradient);
          assertGreater(norm, 1e-4, parameter);
          // Along the gradient, where the slope is its length. The loss is f32, so the step is large and extrapolated.
          const direction = gradient.map((g) => g / norm);
          const slope = async (h: number) =>
            (await lossAt(parameter, direction, h) - await lossAt(parameter, direction, -h)) / (2 * h);
          const step = 0.04;
          const measured = (4 * await slope(step) - await slope(2 * step)) / 3;
          assertLess(Math.abs(measured - norm), 1e-4 + 0.01 * norm, `${parameter}: ${measured}, ${norm}`);
        }
      });
    }));
}

modelTest(
  "shape-gated-lora: noise is drawn anew for every micro-batch and step, from the seed, and not in evaluation",
  (gpu) =>
    withTiny((files) =>
      withTrainer(gpu, tinyRecipe(files, SHAPE), async (trainer) => {
        const batch = packBatch(SAMPLES, trainer.planned.choices.tokens);
        const flat = randomParameters(trainer.setup.trainables);
        const lossOf = async (step: number) => {
          trainer.setState(flat);
          await trainer.step(step, [batch]);
          return (await trainer.collect())[0]!.losses["cross-entropy"]!;
        };
        const first = await lossOf(0);
        assertEquals(await lossOf(0), first);
        assert(await lossOf(1) !== first);
        trainer.setState(flat);
        const measured = await trainer.evaluate(SAMPLES);
        assertEquals(await trainer.evaluate(SAMPLES), measured);
        assert(measured.losses["cross-entropy"] !== first);
      })
    ),
);

Deno.test("shape-gated-lora: a run with noise continues bit for bit, and leaves the one LoRA that its experts are", () =>
  withTiny(async (files) => {
    const recipe = tinyRecipe(files, { ...SHAPE, train: { steps: 4, checkpointEvery: 2, evaluateEvery: 0 } });
    const [whole, parts] = [`${files.folder}/whole`, `${files.folder}/parts`];
    await runHere(recipe, whole);
    await runHere(recipe, parts, { control: (step) => (step === 2 ? "stop" : "run") });
    await runHere(recipe, parts, { resume: true });
    const results = ["adapter/adapter_model.safetensors", "merged/model.safetensors"];
    for (const file of ["checkpoints/step-000004/state.safetensors", ...results]) {
      assertEquals(await Deno.readFile(`${parts}/${file}`), await Deno.readFile(`${whole}/${file}`));
    }
    using setup = await tinySetup(recipe);
    const { adapter, trainables } = setup;
    const { flat } = await readCheckpoint(`${whole}/checkpoints/step-000004`, trainables);
    const values = await adapter.namedValues(trainables.layout.gather(flat.parameters), recipe.train.seed);
    // Layers 0 and 2 of three, and the constant.
    assertEquals([...values.get("shared.shape_router_shape")!], [1, 0, 1, 1]);
    const { tensors, settings } = await readPeftAdapter(`${whole}/adapter`);
    assertEquals([settings.rank, tensors.size], [3, 2 * adapter.layers.length]);
    for (const { path } of adapter.layers) {
      const { a, b } = adapter.plugin.plainLora!(adapter.values(path, values));
      assertEquals(tensors.get(`${path}.lora_A.weight`)!.data, a as Float32Array<ArrayBuffer>);
      assertEquals(tensors.get(`${path}.lora_B.weight`)!.data, b as Float32Array<ArrayBuffer>);
      assertGreater(Math.hypot(...b), 0, `${path} was trained`);
    }
  }));

const LENGTH = 40;

modelTest(
  "instance-gated-lora: generation keeps the prompt's gates, and takes the tokens that whole sequences give",
  (gpu) =>
    withTiny(async (files) => {
      using setup = await tinySetup(tinyRecipe(files, INSTANCE));
      const { student: model, adapter, trainables } = setup;
      const parameters = randomParameters(trainables);
      using reader = await Reader.open(gpu, model, LENGTH, { adapter, parameters });
      const prompts = [5, 29, 2, 17, 8].map((length, i) => tinySample(length, 0, i + 1).ids);
      const continued = async (prompt: Int32Array, sees: (text: number[]) => number) => {
        const text = [...prompt];
        while (text.length < Math.min(prompt.length + 12, LENGTH)) {
          text.push(argmax(await reader.next(Int32Array.from(text), sees(text))));
        }
        return text.slice(prompt.length);
      };
      const [expected, growing]: number[][][] = [[], []];
      for (const prompt of prompts) {
        expected!.push(await continued(prompt, () => prompt.length));
        growing!.push(await continued(prompt, (text) => text.length));
      }
      // Gates that follow the text as it grows would write something else.
      assert(String(expected) !== String(growing));

      const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
      const buffer = gpu.createBuffer(
        byteLength({ shape: [parameters.length], dtype: "f32" }),
        usage,
        "parameters",
      );
      gpu.device.queue.writeBuffer(buffer.raw, 0, parameters as Float32Array<ArrayBuffer>);
      const weights = new Map([...reader.weights, [FLAT.parameters, buffer]]);
      // Prompts in one piece and in many; several at once, with waiting ones behind them.
      for (const [sequences, prefillTokens] of [[1, 16], [3, 7], [8, 64]] as const) {
        const generator = await Generator.create(gpu, model, weights, {
          sequences,
          length: LENGTH,
          prefillTokens,
          attach: (graph, prompt) =>
            adapter.attach(graph, (name) => trainables.view(graph, name), false, prompt),
        });
        const texts = await generator.generate(prompts, {
          temperature: 0,
          topK: 0,
          topP: 1,
          seed: 1,
          maxTokens: 12,
          stopTokens: [],
        });
        generator.destroy();
        assertEquals(texts.map(({ tokens }) => [...tokens]), expected, `${sequences} sequences`);
      }
      buffer.destroy();
    }),
);

modelTest(
  "instance-gated-lora: no target is seen before it is predicted",
  (gpu) =>
    withTiny(async (files) => {
      using setup = await tinySetup(tinyRecipe(files, INSTANCE));
      const { student: model, adapter, trainables } = setup;
      using reader = await Reader.open(gpu, model, LENGTH, {
        adapter,
        parameters: randomParameters(trainables),
      });
      const ids = tinySample(30, 0, 1).ids;
      const changed = ids.with(29, 5).with(20, 7);
      const seen = async (tokens: Int32Array, prompt: number) =>
        (await reader.logits(tokens, prompt)).slice(0, 20 * model.config.vocabularySize);
      assertEquals(await seen(changed, 20), await seen(ids, 20));
      // Looking one token further would be noticed.
      assert(String(await seen(changed, 21)) !== String(await seen(ids, 21)));
    }),
);

/** Data whose every row has a prompt. */
async function writePrompted(files: TinyFiles): Promise<void> {
  const rows = (from: number, count: number) =>
    Array.from({ length: count }, (_, i) =>
      JSON.stringify({
        prompt: ["the cat ", "a mat and the ", "see his "][(from + i) % 3],
        completion: ["sat on a mat", "ran home", "sun"][(from + i) % 3],
      }) + "\n").join("");
  await Deno.writeTextFile(files.train, rows(0, 12));
  await Deno.writeTextFile(files.heldOut, rows(1, 4));
}

Deno.test("instance-gated-lora: a run trains, samples, continues bit for bit, and its checkpoint writes and is measured", () =>
  withTiny(async (files) => {
    await writePrompted(files);
    const registry = new Registry().addAll(builtins);
    const recipe = tinyRecipe(files, {
      ...INSTANCE,
      train: { steps: 4, checkpointEvery: 2, evaluateEvery: 0 },
      samples: { tokens: 6, prompts: ["the cat "] },
    });
    const [whole, parts] = [`${files.folder}/whole`, `${files.folder}/parts`];
    const result = await runHere(recipe, whole);
    assertEquals(result.paths, { adapter: "adapter", base: "base" });
    assertLess(result.heldOut.after!, result.heldOut.before!);
    await runHere(recipe, parts, { control: (step) => (step === 2 ? "stop" : "run") });
    await runHere(recipe, parts, { resume: true });
    const last = "checkpoints/step-000004";
    for (const file of [`${last}/state.safetensors`, "adapter/adapter_model.safetensors"]) {
      assertEquals(await Deno.readFile(`${parts}/${file}`), await Deno.readFile(`${whole}/${file}`));
    }
    using setup = await tinySetup(recipe);
    const { flat } = await readCheckpoint(`${whole}/${last}`, setup.trainables);
    const begun = (await setup.trainables.initialValues(recipe.train.seed)).trained;
    const { offset, count } = setup.trainables.layout.get("shared.instance_router.weight");
    assert(flat.parameters.subarray(offset, offset + count).some((v, i) => v !== begun[offset + i]));
    const file = await SafetensorsFile.open(await openFile(`${whole}/adapter/adapter_model.safetensors`));
    for (const [name, values] of setup.trainables.layout.gather(flat.parameters)) {
      assertEquals((await file.read(name)).data, values as Float32Array<ArrayBuffer>, name);
    }
    file.close();

    const run = { folder: whole, recipe, registry };
    const measured = await evaluateModel({ model: run, data: files.heldOut, registry, contextLength: 64 });
    assertAlmostEquals(measured.loss, result.heldOut.after!, 1e-5);
    const sampling = { maxTokens: 6, temperature: 0, topK: 0, topP: 1, seed: 1 };
    const [text] = await generateTexts({ model: run, prompts: ["the cat "], ...sampling });
    const [other] = await generateTexts({ model: files.teacher, prompts: ["the cat "], ...sampling });
    assertGreater(text!.text.length, 0);
    assert(text!.text !== other!.text);

    const error = await assertRejects(
      () => exportRun(whole, recipe, registry, `${files.folder}/merged`, "merged"),
      InputError,
      '"instance-gated-lora" cannot be merged',
    ) as InputError;
    assert(error.hint);
    assertThrows(() => Deno.statSync(`${files.folder}/merged`), Deno.errors.NotFound);
  }));

Deno.test("instance-gated-lora is refused where it would be merged, and with data that have no prompts", () =>
  withTiny(async (files) => {
    const registry = new Registry().addAll(builtins);
    using setup = await tinySetup(tinyRecipe(files, INSTANCE));
    const merged = { ...setup, recipe: tinyRecipe(files, { ...INSTANCE, output: {} }) };
    assertThrows(
      () => setUp(merged, registry),
      InputError,
      'output.merged: is true, but the adapter "instance-gated-lora" cannot be merged into the weights: what it adds ' +
        "depends on the input; set it to false",
    );

    const recipe = tinyRecipe(files, {
      ...INSTANCE,
      objective: [{ loss: "cross-entropy" }, { loss: "forward-kl", tokens: "all" }],
    });
    const prompts = assertThrows(() => setUp({ ...setup, recipe }, registry), InputError) as InputError;
    assertStringIncludes(prompts.message, "objective.1.tokens: the loss counts the tokens of prompts too");

    const texts = await assertRejects(
      () => runHere(tinyRecipe(files, INSTANCE), `${files.folder}/run`),
      InputError,
      "have no prompt",
    );
    assertStringIncludes(texts.message, "train.jsonl:2");
    checkPrompts(SAMPLES, setup.adapter);
    using lora = await tinySetup(tinyRecipe(files));
    checkPrompts([tinySample(5, 4, 1)], lora.adapter, undefined);
    assertThrows(
      () => checkPrompts([...SAMPLES, tinySample(5, 4, 1)], lora.adapter, setup.adapter),
      InputError,
      "1 of 4",
    );
  }));
