/** Whole runs that train tensors of the student themselves. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertGreater, assertRejects } from "@std/assert";
import { builtins } from "../../plugins/mod.ts";
import { evaluateModel } from "../../src/distill/evaluate/evaluate_model.ts";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import { exportRun } from "../../src/distill/export/export_run.ts";
import { generateTexts } from "../../src/distill/generate/generate_texts.ts";
import type { Recipe } from "../../src/distill/recipe/recipe.ts";
import { InputError } from "../../src/base/errors.ts";
import { Registry } from "../../src/registry/registry.ts";
import { heldMetrics, runHere } from "./tiny_run.ts";
import { type RecipeChanges, type TinyFiles, tinyRecipe, withTiny } from "./tiny_model.ts";
import { exists } from "../../src/formats/files.ts";

/** Every kind of tensor, two micro-batches a step, several chunks of the head. */
function recipeOf(files: TinyFiles, changes: RecipeChanges = {}): Recipe {
  return {
    ...tinyRecipe(files, {
      student: { model: "teacher", layers: [0, 2], train: ["linear", "norms", "biases", "head"] },
      train: {
        steps: 8,
        accumulation: 2,
        tokensPerMicroBatch: 128,
        headChunk: 64,
        checkpointEvery: 3,
        evaluateEvery: 4,
        weightDecay: 0.1,
      },
      samples: { tokens: 6 },
      ...changes,
    }),
    adapter: "none",
  };
}

const registry = new Registry().addAll(builtins);
const bytes = (path: string) => Deno.readFile(path);

Deno.test("a run without an adapter leaves the merged model, and continues bit for bit", () =>
  withTiny(async (files) => {
    const recipe = recipeOf(files);
    const [whole, parts] = [`${files.folder}/whole`, `${files.folder}/parts`];
    const said: RunEventBody[] = [];
    const result = await runHere(recipe, whole, {}, said);
    assertEquals(result.paths, { merged: "merged" });
    assertEquals([await exists(`${whole}/adapter`), await exists(`${whole}/base`)], [false, false]);
    assert(
      said.some((e) => e.type === "stage" && e.message === "writing the merged model; there is no adapter"),
    );
    assertEquals(result.peakBytes.planned, result.peakBytes.allocated);
    assertGreater(result.heldOut.before! - result.heldOut.after!, 0.3);

    const resumed: RunEventBody[] = [];
    const stop = (step: number) => (step === 5 ? "stop" as const : "run" as const);
    assertEquals((await runHere(recipe, parts, { control: stop }, resumed)).status, "paused");
    await runHere(recipe, parts, { resume: true }, resumed);
    assertEquals(heldMetrics(resumed), heldMetrics(said));
    for (const file of ["merged/model.safetensors", "checkpoints/step-000008/state.safetensors"]) {
      assertEquals(await bytes(`${parts}/${file}`), await bytes(`${whole}/${file}`), file);
    }

    // The head, which was the embedding, is the student's own now, and what was measured and written is what lies there.
    const config = JSON.parse(await Deno.readTextFile(`${whole}/merged/config.json`));
    assertEquals(config.tie_word_embeddings, false);
    const measured = await evaluateModel({
      model: `${whole}/merged`,
      data: files.heldOut,
      contextLength: 64,
      registry,
    });
    assertAlmostEquals(measured.loss, result.heldOut.after!, 5e-3);
    const sample = said.findLast((e) => e.type === "sample");
    assert(sample?.type === "sample" && sample.model === "student");
    const [text] = await generateTexts({
      model: { folder: whole, recipe, registry },
      prompts: [sample.prompt],
      maxTokens: 6,
      temperature: 0,
      topK: 0,
      topP: 1,
      seed: 1,
    });
    assertEquals(text!.text, sample.text);

    const again = `${files.folder}/again`;
    await exportRun(whole, recipe, registry, again, "merged");
    assertEquals(await bytes(`${again}/model.safetensors`), await bytes(`${whole}/merged/model.safetensors`));
    await assertRejects(
      () => exportRun(whole, recipe, registry, `${files.folder}/peft`, "peft"),
      InputError,
      "the run trained no adapter",
    );
  }, { biases: true, tiedHead: true }));

Deno.test("tensors, an adapter on the head and one on a layer are trained together", () =>
  withTiny(async (files) => {
    const recipe = tinyRecipe(files, {
      student: { model: "teacher", train: ["norms", "k_proj"] },
      objective: [{ loss: "cross-entropy" }],
      adapter: { rank: 4, targets: ["q_proj", "lm_head"] },
      train: { steps: 12, tokensPerMicroBatch: 128, headChunk: 64, learningRate: 0.02 },
      samples: { tokens: 4 },
    });
    const folder = `${files.folder}/run`;
    const result = await runHere(recipe, folder);
    assertEquals([result.paths, result.adapterForm], [{ adapter: "adapter", merged: "merged" }, "peft"]);
    assertEquals(result.peakBytes.planned, result.peakBytes.allocated);
    assertGreater(result.heldOut.before! - result.heldOut.after!, 1);
    const options = { data: files.heldOut, contextLength: 64, registry };
    const merged = await evaluateModel({ model: `${folder}/merged`, ...options });
    assertAlmostEquals(merged.loss, result.heldOut.after!, 1e-4);
    const own = await evaluateModel({ model: { folder, recipe, registry }, ...options });
    assertAlmostEquals(own.loss, result.heldOut.after!, 1e-5);
  }));

Deno.test("an adapter on a tied head, or with dropout on any, is refused", () =>
  withTiny(async (files) => {
    const refused = (adapter: RecipeChanges["adapter"], says: string) =>
      assertRejects(() => runHere(tinyRecipe(files, { adapter }), `${files.folder}/run`), InputError, says);
    await refused({ targets: ["lm_head"] }, "the head is the embedding");
    await refused(
      { targets: ["lm_haed"] },
      '"lm_haed" names no linear layer of the model; did you mean "lm_head"?',
    );
  }, { tiedHead: true }));

Deno.test("an adapter on the head has no dropout and draws no noise", () =>
  withTiny(async (files) => {
    const refused = (adapter: RecipeChanges["adapter"], says: string) =>
      assertRejects(() => runHere(tinyRecipe(files, { adapter }), `${files.folder}/run`), InputError, says);
    await refused({ targets: ["lm_head"], dropout: 0.1 }, "an adapter on the head cannot have dropout");
    await refused(
      { type: "shape-gated-lora", targets: ["lm_head"] },
      '"shape-gated-lora" draws noise, so the head',
    );
  }));
