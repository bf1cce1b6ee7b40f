/** Merges that are refused: each with a clear error, and nothing left behind. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { LimbeckError } from "../../src/base/errors.ts";
import { DiskFullError, freeBytes, openFile } from "../../src/formats/files.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import { planSafetensors } from "../../src/formats/safetensors/write.ts";
import type { MergeModelsOptions } from "../../src/merge/engine/merge_models.ts";
import { tinyTokenizerJson } from "../distill/tiny_model.ts";
import { mergeTiny, namesIn, tinyOptions, withModels } from "./tiny_merge.ts";

const MODELS = { base: {}, a: { seed: 2 }, b: { seed: 3 } };

/** Asserts that a merge is refused with all of `said` and exit code 3, and leaves nothing. */
async function refused(
  folder: string,
  recipe: object,
  said: readonly string[],
  options: Partial<MergeModelsOptions> = {},
): Promise<LimbeckError> {
  const before = namesIn(folder);
  const error = await assertRejects(() => mergeTiny(folder, recipe, "merged", options), LimbeckError);
  for (const text of said) assertStringIncludes(error.message, text);
  assertEquals(namesIn(folder), before);
  return error;
}

const models = [{ model: "a" }, { model: "b" }];

const RECIPES: readonly [name: string, recipe: object, ...said: string[]][] = [
  ["a method that does not exist", { method: "tyes", models }, 'there is no merge "tyes"'],
  [
    "a missing base",
    { method: "ties", models },
    "base: ties needs the model that the others were trained from",
  ],
  ["too few models", { method: "slerp", models: [{ model: "a" }] }, "models: slerp merges", "there is 1"],
  ["too many models", { method: "passthrough", models }, "models: passthrough merges 1 model", "there are 2"],
  [
    "a density out of range",
    { method: "ties", base: "base", models: [{ model: "a", density: 1.5 }, { model: "b" }] },
    "models.0.density: must be at most 1, not 1.5",
  ],
  [
    "a gradient that leaves the range",
    { method: "ties", base: "base", models: [{ model: "a", density: [0.5, 2] }, { model: "b" }] },
    "models.0.density: must be at most 1",
  ],
  [
    "a weight that is no number",
    { method: "linear", models: [{ model: "a", weight: "much" }] },
    "models.0.weight",
  ],
  [
    "a misspelt option of a model",
    { method: "linear", models: [{ model: "a", weigth: 1 }] },
    'models.0.weigth: linear has no such option; did you mean "weight"?',
  ],
  [
    "a misspelt option of the method",
    { method: "linear", models, options: { normalise: true } },
    'options.normalise: linear has no such option; did you mean "normalize"?',
  ],
  [
    "an option of the whole merge beside a model",
    { method: "ties", base: "base", models: [{ model: "a", lambda: 1 }] },
    "models.0.lambda: is an option of the merge as a whole; write it under options",
  ],
  [
    "layers that a model does not have",
    { method: "passthrough", slices: [{ sources: [{ model: "a", layers: [1, 3] }] }] },
    "slices.0.sources.0: layers 1 to 3 are asked for",
    "has 2",
  ],
  [
    "no layers",
    { method: "passthrough", slices: [{ sources: [{ model: "a", layers: [1, 1] }] }] },
    "slices.0.sources.0: layers 1 to 1",
  ],
  [
    "sources of different lengths",
    {
      method: "linear",
      slices: [{ sources: [{ model: "a", layers: [0, 2] }, { model: "b", layers: [0, 1] }] }],
    },
    "slices.0.sources.1: 1 layers, where slices.0.sources.0 has 2",
  ],
  [
    "a base whose layers are not said",
    {
      method: "ties",
      base: "base",
      slices: [{ sources: [{ model: "a", layers: [0, 1] }, { model: "b", layers: [1, 2] }] }],
    },
    "slices.0: its sources take different layers, so it must name the base",
  ],
  [
    "another program",
    { method: "ties", base: "base", models, like: "torch" },
    "like: ties can be like mergekit",
  ],
  [
    "a base's tokens without a base",
    { method: "linear", models, tokenizer: "base" },
    "the recipe names no base",
  ],
  ["a model that is not there", { method: "linear", models: [{ model: "c" }] }, "/c: there is no such file"],
];

Deno.test("what a recipe asks for and cannot have is refused by its path", async (t) => {
  await withModels(MODELS, async (folder) => {
    for (const [name, recipe, ...said] of RECIPES) {
      await t.step(name, async () => {
        assertEquals((await refused(folder, recipe, said)).exitCode, 3);
      });
    }
    await t.step("models that are not there are all told, and with them options that are wrong", async () => {
      await refused(folder, { method: "linear", models: [{ model: "c" }, { model: "d" }] }, [
        "2 models cannot be opened",
        "/c: there is no such file",
        "/d: there is no such file",
      ]);
      const wrong = {
        method: "ties",
        base: "e",
        models: [{ model: "c", density: [0.5, 2] }, { model: "a" }],
      };
      await refused(folder, { ...wrong, options: { lambada: 1 }, tokenizer: "f" }, [
        "5 problems",
        "models.0.model: ",
        "/c: there is no such file",
        "base: ",
        "/e: there is no such file",
        "tokenizer: ",
        "/f: there is no such file",
        "models.0.density: must be at most 1, not 2",
        "options.lambada: ties has no such option",
      ]);
    });
    await t.step("several problems are told at once", async () => {
      await refused(folder, {
        method: "ties",
        models: [{ model: "a", density: 2 }, { model: "b", gama: 1 }],
      }, ["2 problems", "base: ties needs", "models.1.gama"]);
    });
  });
});

Deno.test("models of other shapes, kinds, tokens or layers are refused by name", async () => {
  await withModels({
    a: {},
    wide: { hiddenSize: 32 },
    deep: { layers: 3 },
    tied: { tiedHead: true },
    biased: { biases: true },
    rows: { vocabularySize: 150 },
    tokens: {},
  }, async (folder) => {
    const json = JSON.parse(await Deno.readTextFile(`${folder}/tokens/tokenizer.json`));
    [json.model.vocab.a, json.model.vocab.b] = [json.model.vocab.b, json.model.vocab.a];
    await Deno.writeTextFile(`${folder}/tokens/tokenizer.json`, JSON.stringify(json));
    const against = (model: string, ...said: string[]) =>
      refused(folder, { method: "linear", models: [{ model: "a" }, { model }] }, said);
    await against("wide", "/wide: is another kind of model than", "hiddenSize is 32, not 16");
    await against("deep", "models.1: 3 layers, where models.0 has 2");
    await against("tied", "/tied: is another kind", "tiedHead is true, not false");
    await against("biased", "/biased: is another kind", "ias is true");
    await against("rows", "/rows: has 150 rows of embeddings", "/a has");
    const { hint } = await against("tokens", "/tokens: has other tokens: token", '"a"', '"b"');
    assertStringIncludes(hint!, "tokenizer: base, union");
    await Deno.remove(`${folder}/tokens/tokenizer.json`);
    await refused(folder, {
      method: "linear",
      tokenizer: "union",
      models: [{ model: "a" }, { model: "tokens" }],
    }, [
      "tokenizer: there is no tokenizer in",
      "/tokens",
    ]);
    const config = JSON.parse(await Deno.readTextFile(`${folder}/a/config.json`));
    const mistral = {
      ...config,
      architectures: ["MistralForCausalLM"],
      model_type: "mistral",
      sliding_window: null,
    };
    await Deno.writeTextFile(`${folder}/rows/config.json`, JSON.stringify({ ...mistral, vocab_size: 150 }));
    await against("rows", "/rows: is another kind", "MistralForCausalLM");
  });
});

Deno.test("other rotary frequencies are said, and do not forbid the merge", async () => {
  await withModels({ a: {}, b: { seed: 2 } }, async (folder) => {
    const path = `${folder}/b/config.json`;
    const config = JSON.parse(await Deno.readTextFile(path));
    await Deno.writeTextFile(path, JSON.stringify({ ...config, rope_theta: 500000 }));
    let notes: readonly string[] = [];
    await mergeTiny(folder, { method: "linear", models: [{ model: "a" }, { model: "b" }] }, "merged", {
      onPlan: (plan) => notes = plan.notes,
    });
    assertEquals(notes.length, 1);
    assertStringIncludes(notes[0]!, "the rotary frequencies (rope_theta, rope_scaling) of");
  });
});

/** Changes one entry of a tensor in a folder's file. */
async function damage(path: string, tensor: string, at: number, value: number): Promise<void> {
  const file = await SafetensorsFile.open(await openFile(`${path}/model.safetensors`));
  const { begin } = file.entry(tensor);
  file.close();
  const bytes = await Deno.readFile(`${path}/model.safetensors`);
  new DataView(bytes.buffer).setFloat32(begin + 4 * at, value, true);
  await Deno.writeFile(`${path}/model.safetensors`, bytes);
}

Deno.test("NaN in a parent is found half-way: model, tensor and place are named, and nothing is left", async () => {
  await withModels(MODELS, async (folder) => {
    await damage(`${folder}/b`, "model.layers.1.mlp.up_proj.weight", 37, NaN);
    for (const piece of [undefined, 20]) {
      const error = await refused(folder, { method: "linear", models }, [
        "/b: 1 values of tensor model.layers.1.mlp.up_proj.weight (the first at 37) are NaN or infinite",
      ], { ...(piece ? { piece } : {}) });
      assertEquals(error.exitCode, 3);
    }
    await damage(`${folder}/b`, "model.layers.1.mlp.up_proj.weight", 37, 1e20);
    await refused(folder, { method: "linear", models, dtype: "f16" }, [
      "/b: 1 values of tensor model.layers.1.mlp.up_proj.weight (the first at 37) are too large for f16",
    ]);
    await refused(folder, { method: "linear", models, outDtype: "f16" }, ["values too large for f16"]);
  });
});

Deno.test("a method that gives the wrong number of values, or NaN, is told, and nothing is left", async () => {
  await withModels({ a: {} }, async (folder) => {
    const linear = tinyOptions.method("linear");
    const broken = (merge: typeof linear.merge) => ({ method: () => ({ ...linear, merge }) });
    const recipe = { method: "linear", models: [{ model: "a" }] };
    await refused(folder, recipe, ["linear gave 3 values of", "not"], broken(() => new Float32Array(3)));
    await refused(
      folder,
      recipe,
      ["NaN or infinite"],
      broken(({ parents }) => parents[0]!.values.fill(NaN)),
    );
    await refused(folder, recipe, ["no luck"], broken(() => Promise.reject(new LimbeckError("no luck"))));
  });
});

Deno.test("a folder that is there is kept as it is", async () => {
  await withModels(MODELS, async (folder) => {
    await Deno.mkdir(`${folder}/merged`);
    await Deno.writeTextFile(`${folder}/merged/mine`, "x");
    const error = await refused(folder, { method: "linear", models }, ["/merged: is already there"]);
    assertEquals(error.exitCode, 3);
    assertEquals(namesIn(`${folder}/merged`), ["mine"]);
  });
});

Deno.test("a disk that fills up half-way leaves nothing", async () => {
  await withModels(MODELS, async (folder) => {
    const linear = tinyOptions.method("linear");
    let calls = 0;
    const full = (): Float32Array => {
      throw Object.assign(new Error("No space left on device"), { code: "ENOSPC" });
    };
    const merge: typeof linear.merge = (input) => ++calls > 5 ? full() : linear.merge(input);
    const before = namesIn(folder);
    await assertRejects(
      () =>
        mergeTiny(folder, { method: "linear", models }, "merged", { method: () => ({ ...linear, merge }) }),
      DiskFullError,
      "disk full",
    );
    assertEquals(calls, 6);
    assertEquals(namesIn(folder), before);
  });
});

Deno.test("a result that the disk has no room for is refused before anything is read", async () => {
  await withModels({ a: {} }, async (folder) => {
    const free = await freeBytes(folder);
    const path = `${folder}/a/model.safetensors`;
    const file = await SafetensorsFile.open(await openFile(path));
    const rows = Math.floor(1.2 * (free ?? 0) / 64);
    const specs = [...file.tensors].map(([name, { dtype, shape }]) => ({
      name,
      dtype,
      shape: name === "model.embed_tokens.weight" || name === "lm_head.weight" ? [rows, 16] : shape,
    }));
    file.close();
    const { header, size } = planSafetensors(specs);
    await Deno.writeFile(path, header);
    // A file with holes; not every system has them or files of that size.
    const hasHoles = await Deno.truncate(path, size).then(() => true, () => false);
    if (free === undefined || !hasHoles) return console.log("skip: this system has no files with holes");
    const config = JSON.parse(await Deno.readTextFile(`${folder}/a/config.json`));
    await Deno.writeTextFile(`${folder}/a/config.json`, JSON.stringify({ ...config, vocab_size: rows }));
    let isPlanned = false;
    const error = await refused(folder, { method: "linear", models: [{ model: "a" }] }, ["disk full"], {
      onPlan: () => isPlanned = true,
    });
    assert(error instanceof DiskFullError && error.bytesNeeded > free);
    assertEquals(isPlanned, false, "it was found out only when the file was begun");
  });
});

Deno.test("a merge that is stopped leaves nothing", async () => {
  await withModels(MODELS, async (folder) => {
    const stop = new AbortController();
    let written = 0;
    await refused(folder, { method: "linear", models }, ["stopped"], {
      signal: stop.signal,
      onProgress({ tensors }) {
        written = tensors;
        if (tensors === 3) stop.abort(new LimbeckError("stopped"));
      },
    });
    assertEquals(written, 3);
  });
});

Deno.test("a model without tokenizer is taken to have the tokens of the others", async () => {
  await withModels(MODELS, async (folder) => {
    await Deno.remove(`${folder}/a/tokenizer.json`);
    let notes: readonly string[] = [];
    await mergeTiny(folder, { method: "linear", models }, "merged", { onPlan: (plan) => notes = plan.notes });
    assert(notes[0]!.includes("there is no tokenizer in"), notes.join());
    assertEquals(
      JSON.parse(await Deno.readTextFile(`${folder}/merged/tokenizer.json`)),
      JSON.parse(JSON.stringify(tinyTokenizerJson())),
    );
  });
});
