/** Merges of small models made on the spot, from a recipe to a folder. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertNotEquals, assertStringIncludes } from "@std/assert";
import { createHash } from "node:crypto";
import { z } from "zod";
import { openModel } from "../../src/formats/open_model.ts";
import { Model } from "../../src/distill/inputs/models.ts";
import { uniformDraws } from "../../src/merge/engine/draws.ts";
import type { MergePlan } from "../../src/merge/engine/plan.ts";
import { CONTRACT_VERSION, defineMerge } from "../../src/registry/contract.ts";
import { TextTokenizer } from "../../src/text/tokenizer.ts";
import { writeTinyGguf } from "../distill/tiny_gguf.ts";
import { exchangeTokens, mergeTiny, namesIn, tinyOptions, valuesOf, withModels } from "./tiny_merge.ts";

const two = { a: { seed: 2 }, b: { seed: 3 } };

Deno.test("a weighted mean is what arithmetic says, and the folder opens as a model", async () => {
  await withModels(two, async (folder) => {
    const result = await mergeTiny(folder, {
      method: "linear",
      models: [{ model: "a", weight: 3 }, { model: "b", weight: 1 }],
    });
    const [a, b, merged] = await Promise.all(
      ["a", "b", "merged"].map((name) => valuesOf(`${folder}/${name}`)),
    );
    assertEquals([...merged!.keys()].sort(), [...a!.keys()].sort());
    for (const [name, values] of merged!) {
      for (const [i, value] of values.entries()) {
        assertAlmostEquals(value, 0.75 * a!.get(name)![i]! + 0.25 * b!.get(name)![i]!, 1e-6);
      }
    }
    assertEquals(namesIn(folder), ["a", "b", "merged"]);
    const opened = await Model.open(`${folder}/merged`, { category: "weights" });
    assertEquals(opened.config.layers, 2);
    opened.close();
    assertEquals(result.tensors, merged!.size);
  });
});

Deno.test("the card names parents, options and hashes that anyone can compute", async () => {
  await withModels(two, async (folder) => {
    const { files, models } = await mergeTiny(folder, {
      method: "linear",
      models: [{ model: "a", weight: 0.25 }, { model: "b", weight: [0.5, 1] }],
    });
    const card = await Deno.readTextFile(`${folder}/merged/README.md`);
    for (
      const said of ["# merged", "- a\n", "weight 0.25", "weight [0.5,1]", "arXiv 2203.05482", "Limbeck "]
    ) {
      assertStringIncludes(card, said);
    }
    const sha = (path: string) =>
      createHash("sha256").update(Deno.readFileSync(`${folder}/${path}`)).digest("hex");
    for (const [i, path] of ["a/model.safetensors", "b/model.safetensors"].entries()) {
      assertEquals(models[i]!.sha256, sha(path));
      assertStringIncludes(card, sha(path));
    }
    assertEquals(files, { "model.safetensors": sha("merged/model.safetensors") });
    assertStringIncludes(card, sha("merged/model.safetensors"));
    assert(!card.includes(folder), "folders of this machine mean nothing to readers");
  });
});

Deno.test("a model is read twice: once to merge it and once to hash it", async () => {
  await withModels(two, async (folder) => {
    const file = `${folder}/a/model.safetensors`;
    const open = Deno.open;
    let bytes = 0;
    Deno.open = async (...args) => {
      const opened = await open(...args);
      if (args[0] !== file) return opened;
      const read = opened.read.bind(opened);
      opened.read = async (into) => {
        const count = await read(into);
        bytes += count ?? 0;
        return count;
      };
      return opened;
    };
    try {
      await mergeTiny(folder, { method: "linear", models: [{ model: "a" }, { model: "b" }] });
    } finally {
      Deno.open = open;
    }
    const turns = bytes / (await Deno.stat(file)).size;
    // A few bytes more tell what kind of file it is.
    assert(turns >= 2 && turns < 2.1, `it is read ${turns} times`);
  });
});

Deno.test("pieces, shards and the seed: the same numbers whatever the pieces, others with another seed", async () => {
  await withModels({ base: {}, ...two }, async (folder) => {
    const recipe = { method: "dare-linear", base: "base", models: [{ model: "a" }, { model: "b" }] };
    const merged = async (output: string, more: object, options = {}) => {
      await mergeTiny(folder, { ...recipe, options: { density: 0.5 }, ...more }, output, options);
      return await valuesOf(`${folder}/${output}`);
    };
    const whole = await merged("whole", {});
    assertEquals(await merged("pieces", {}, { piece: 37 }), whole);
    const shards = await merged("shards", {}, { shardBytes: 4000 });
    assertEquals([...shards].sort(), [...whole].sort());
    assert(namesIn(`${folder}/shards`).includes("model.safetensors.index.json"));
    const other = await merged("other", { seed: 1 });
    assertNotEquals([...other.values()][0], [...whole.values()][0]);
    // A tensor's draws do not hang on what else is merged: an entry is kept or not, whatever the density of others.
    const filtered = await merged("filtered", {
      options: { density: [{ filter: "mlp", value: 0.5 }, { value: 0.9 }] },
    });
    for (const [name, values] of filtered) if (name.includes("mlp")) assertEquals(values, whole.get(name));
  });
});

Deno.test("random numbers of a piece are those of the whole, uniform, and of each tensor and parent its own", () => {
  const whole = uniformDraws(7, "w", 0, 0, 10_001);
  for (const [first, count] of [[0, 1], [1, 2], [3, 9], [4, 4], [9_998, 3]] as const) {
    assertEquals(uniformDraws(7, "w", 0, first, count), whole.slice(first, first + count));
  }
  for (
    const other of [
      uniformDraws(8, "w", 0, 0, 9),
      uniformDraws(7, "v", 0, 0, 9),
      uniformDraws(7, "w", 1, 0, 9),
    ]
  ) {
    assertNotEquals(other, whole.slice(0, 9));
  }
  const bins = new Array(10).fill(0);
  for (const value of whole) bins[Math.floor(10 * value)]++;
  // Chi squared with 9 degrees of freedom is above 40 once in 130,000 times; the seed is fixed.
  assert(bins.reduce((sum, count) => sum + (count - 1000.1) ** 2 / 1000.1, 0) < 40, bins.join());
});

Deno.test("layers are stacked, and what a config says of each layer goes along", async () => {
  await withModels({ a: { layers: 3, seed: 2 }, b: { layers: 3, seed: 3 } }, async (folder) => {
    for (const [name, kinds] of [["a", ["full", "full", "full"]], ["b", ["x", "y", "z"]]] as const) {
      const path = `${folder}/${name}/config.json`;
      const config = JSON.parse(await Deno.readTextFile(path));
      await Deno.writeTextFile(path, JSON.stringify({ ...config, _kinds: kinds }));
    }
    await mergeTiny(folder, {
      method: "passthrough",
      slices: [{ sources: [{ model: "a", layers: [0, 2] }] }, { sources: [{ model: "b", layers: [1, 3] }] }],
    });
    const [a, b, merged] = await Promise.all(
      ["a", "b", "merged"].map((name) => valuesOf(`${folder}/${name}`)),
    );
    const same = (name: string, of: Map<string, Float32Array>, from = name) =>
      assertEquals(merged!.get(name), of.get(from), name);
    same("model.embed_tokens.weight", a!);
    same("model.norm.weight", b!);
    same("lm_head.weight", b!);
    same("model.layers.1.mlp.up_proj.weight", a!);
    same("model.layers.2.mlp.up_proj.weight", b!, "model.layers.1.mlp.up_proj.weight");
    same("model.layers.3.mlp.up_proj.weight", b!, "model.layers.2.mlp.up_proj.weight");
    const config = JSON.parse(await Deno.readTextFile(`${folder}/merged/config.json`));
    assertEquals([config.num_hidden_layers, config._kinds], [4, ["full", "full", "y", "z"]]);
  });
});

Deno.test("gradients run along the slice, and embedding, norm and head are read at its start", async () => {
  await withModels({ a: { layers: 3, seed: 2 }, b: { layers: 3, seed: 3 } }, async (folder) => {
    let plan: MergePlan | undefined;
    await mergeTiny(
      folder,
      {
        method: "linear",
        models: [{ model: "a", weight: [0, 1] }, { model: "b", weight: 1 }],
      },
      "merged",
      { onPlan: (found) => plan = found },
    );
    const weight = (name: string) =>
      plan!.tensors.find((tensor) => tensor.name === name)!.parents[0]!.options.weight;
    assertEquals(
      ["embed_tokens", "layers.0.mlp.up_proj", "layers.1.mlp.up_proj", "layers.2.mlp.up_proj", "norm"]
        .map((name) => weight(`model.${name}.weight`)),
      [0, 0, 0.5, 1, 0],
    );
    assertEquals(weight("lm_head.weight"), 0);
  });
});

Deno.test("storage: bf16 models give bf16, mixed ones f32, and dtype rounds what goes in", async () => {
  await withModels(
    { a: { dtype: "bf16" }, b: { dtype: "bf16", seed: 2 }, c: { seed: 3 } },
    async (folder) => {
      const models = (...names: string[]) => names.map((model) => ({ model }));
      const dtypeOf = async (output: string, recipe: object) =>
        (await mergeTiny(folder, { method: "linear", ...recipe }, output)).dtype;
      assertEquals(await dtypeOf("1", { models: models("a", "b") }), "bf16");
      assertEquals(await dtypeOf("2", { models: models("a", "c") }), "f32");
      assertEquals(await dtypeOf("3", { models: models("a", "c"), outDtype: "f16" }), "f16");
      assertEquals(await dtypeOf("4", { models: models("c"), dtype: "bf16", outDtype: "f32" }), "f32");
      const bits = new Uint32Array((await valuesOf(`${folder}/4`)).get("model.norm.weight")!.buffer);
      assert(bits.every((word) => (word & 0xffff) === 0), "inputs were not rounded to bf16");
      const config = JSON.parse(await Deno.readTextFile(`${folder}/3/config.json`));
      assertEquals(config.torch_dtype, "float16");
    },
  );
});

Deno.test("GGUF files are parents too", async () => {
  await withModels(two, async (folder) => {
    await writeTinyGguf(`${folder}/b`, `${folder}/b.gguf`, "F32");
    await mergeTiny(folder, { method: "linear", models: [{ model: "a" }, { model: "b" }] }, "folders");
    await mergeTiny(folder, { method: "linear", models: [{ model: "a" }, { model: "b.gguf" }] }, "mixed");
    assertEquals(await valuesOf(`${folder}/mixed`), await valuesOf(`${folder}/folders`));
  });
});

Deno.test("the tokens of both: rows go by token, and the result's tokenizer reads the new ones", async () => {
  await withModels({ a: { seed: 2 }, b: { seed: 3 } }, async (folder) => {
    const swapped = await exchangeTokens(`${folder}/b`, "a", "b", "<|new|>");
    await mergeTiny(folder, {
      method: "linear",
      tokenizer: "union",
      models: [{ model: "a" }, { model: "b" }],
    });
    const [a, b, merged] = await Promise.all(
      ["a", "b", "merged"].map((name) => valuesOf(`${folder}/${name}`)),
    );
    const embedding = "model.embed_tokens.weight";
    const row = (values: Map<string, Float32Array>, id: number, of = embedding) =>
      values.get(of)!.slice(16 * id, 16 * (id + 1));
    const mean = (x: Float32Array, y: Float32Array) =>
      x.map((value, i) => Math.fround(value / 2) + y[i]! / 2);
    const close = (x: Float32Array, y: Float32Array) =>
      x.forEach((v, i) => assertAlmostEquals(v, y[i]!, 1e-6));
    close(row(merged!, swapped.first), mean(row(a!, swapped.first), row(b!, swapped.second)));
    close(
      row(merged!, 5, "lm_head.weight"),
      mean(row(a!, 5, "lm_head.weight"), row(b!, 5, "lm_head.weight")),
    );
    close(row(merged!, swapped.added), row(b!, swapped.added));
    const opened = await openModel(`${folder}/merged`);
    const { tokenizerJson, tokenizerConfig } = await opened.tokenizer();
    const tokenizer = TextTokenizer.fromJson(tokenizerJson, tokenizerConfig, "merged");
    assertEquals(tokenizer.tokenId("<|new|>"), swapped.added);
    assertEquals(opened.config.vocab_size, swapped.added + 1);
    opened.close();
    await mergeTiny(
      folder,
      { method: "linear", tokenizer: "b", models: [{ model: "a" }, { model: "b" }] },
      "as-b",
    );
    const asB = await valuesOf(`${folder}/as-b`);
    close(row(asB, swapped.second), mean(row(a!, swapped.first), row(b!, swapped.second)));
    close(row(asB, swapped.added), row(b!, swapped.added));
  });
});

Deno.test("a token that a model lacks takes the base's row, or the mean of those that have it", async () => {
  await withModels({ a: { seed: 2 }, b: { seed: 3 }, c: { seed: 4 } }, async (folder) => {
    for (const name of ["a", "c"]) await exchangeTokens(`${folder}/${name}`, "x", "x", "<|new|>");
    const recipe = {
      method: "linear",
      tokenizer: "union",
      models: ["a", "b", "c"].map((model) => ({ model })),
    };
    await mergeTiny(folder, recipe, "mean");
    await mergeTiny(folder, { ...recipe, base: "c" }, "of-c");
    const [a, c, mean, ofC] = await Promise.all(["a", "c", "mean", "of-c"].map(async (name) => {
      return (await valuesOf(`${folder}/${name}`)).get("model.embed_tokens.weight")!.slice(-16);
    }));
    for (let i = 0; i < 16; i++) {
      assertAlmostEquals(mean![i]!, (a![i]! + c![i]!) / 2, 1e-6);
      assertAlmostEquals(ofC![i]!, (a![i]! + 2 * c![i]!) / 3, 1e-6);
    }
  });
});

Deno.test("new tokens follow the last one, and no older list of tokens contradicts them", async () => {
  await withModels({ a: { seed: 2, vocabularySize: 220 }, b: { seed: 3 } }, async (folder) => {
    const { added } = await exchangeTokens(`${folder}/b`, "x", "x", "<|new|>");
    await Deno.writeTextFile(`${folder}/a/added_tokens.json`, "{}");
    await mergeTiny(folder, {
      method: "linear",
      tokenizer: "union",
      models: [{ model: "a" }, { model: "b" }],
    });
    const config = JSON.parse(await Deno.readTextFile(`${folder}/merged/config.json`));
    assertEquals(config.vocab_size, added + 1);
    assert(!namesIn(`${folder}/merged`).includes("added_tokens.json"));
  });
});

Deno.test("a method may look at all tensors first, as often as it says", async () => {
  const seen: string[] = [];
  const shifted = defineMerge({
    id: "me/above-the-mean",
    version: "1.0.0",
    contract: CONTRACT_VERSION,
    options: z.strictObject({}),
    parentOptions: z.strictObject({}),
    base: "none",
    parents: { least: 1 },
    unit: "entries",
    survey: {
      passes: () => 2,
      begin: () => ({ sum: 0, count: 0 }),
      see(memory, { name, parents }, pass) {
        seen.push(`${pass} ${name}`);
        const found = memory as { sum: number; count: number };
        if (pass === 1) return;
        for (const value of parents[0]!.values) {
          [found.sum, found.count] = [found.sum + value, found.count + 1];
        }
      },
    },
    merge({ parents, survey }) {
      const { sum, count } = survey as { sum: number; count: number };
      return parents[0]!.values.map((value) => value - sum / count);
    },
  });
  await withModels({ a: {} }, async (folder) => {
    await mergeTiny(folder, { method: "any", models: [{ model: "a" }] }, "merged", { method: () => shifted });
    const [a, merged] = await Promise.all(["a", "merged"].map((name) => valuesOf(`${folder}/${name}`)));
    const all = [...a!.values()].flatMap((values) => [...values]);
    const mean = all.reduce((sum, value) => sum + value, 0) / all.length;
    assertAlmostEquals(merged!.get("model.norm.weight")![3]!, a!.get("model.norm.weight")![3]! - mean, 1e-6);
    assertEquals(seen.length, 2 * a!.size);
  });
});

Deno.test("a chat template of the recipe is the result's", async () => {
  await withModels({ a: {} }, async (folder) => {
    await mergeTiny(folder, {
      method: "passthrough",
      models: [{ model: "a" }],
      chatTemplate: "{{ messages[0].content }}",
    });
    const model = await openModel(`${folder}/merged`);
    assertEquals((await model.tokenizer()).chatTemplate, "{{ messages[0].content }}");
    model.close();
  });
});

Deno.test("progress ends with all that was announced", async () => {
  await withModels({ base: {}, ...two }, async (folder) => {
    for (const [i, options] of [{ trim: "model" }, { trim: "tensor" }].entries()) {
      let last: unknown;
      const { tensors } = await mergeTiny(
        folder,
        { method: "ties", base: "base", models: [{ model: "a" }, { model: "b" }], options },
        `merged-${i}`,
        { onProgress: (progress) => last = progress, method: tinyOptions.method, piece: 100 },
      );
      const { bytes, bytesTotal, ...rest } = last as Record<string, number>;
      assertEquals([bytes, rest], [bytesTotal, { tensors, tensorsTotal: tensors }]);
    }
  });
});
