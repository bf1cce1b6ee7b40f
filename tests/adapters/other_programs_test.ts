/**
 * Adapters for llama.cpp and mlx-lm. `fixtures/gguf_adapter.json` holds what llama.cpp's convert_lora_to_gguf.py writes, and
 * `fixtures/mlx_adapters.json` what mlx-lm 0.32.2 trains, for LoRA of rank 4 on q_proj and down_proj of the tiny model.
 */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertGreater, assertRejects } from "@std/assert";
import { adapters } from "../../plugins/adapters/mod.ts";
import { type AdapterForm, hasForm, writeAdapter } from "../../src/distill/export/adapter_files.ts";
import { writeMerged } from "../../src/distill/export/exports.ts";
import { InputError } from "../../src/base/errors.ts";
import { openFile } from "../../src/formats/files.ts";
import { GgufFile } from "../../src/formats/gguf/gguf.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import { writeTinyGguf } from "../distill/tiny_gguf.ts";
import { tinyRecipe, withTiny } from "../distill/tiny_model.ts";
import { trained } from "./trained_adapter.ts";

interface Read {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

const fixture = async (name: string) =>
  JSON.parse(await Deno.readTextFile(new URL(`fixtures/${name}.json`, import.meta.url)));

async function readGguf(path: string) {
  const file = await GgufFile.open(await openFile(path));
  const tensors = new Map<string, Read & { type: string }>();
  for (const [name, { type, shape }] of file.tensors) {
    tensors.set(name, { type: type.name, shape, data: (await file.read(name)).data as Float32Array });
  }
  const metadata = Object.fromEntries(file.metadata);
  file.close();
  return { metadata, tensors };
}

async function readMlx(folder: string) {
  const file = await SafetensorsFile.open(await openFile(`${folder}/adapters.safetensors`));
  const tensors = new Map<string, Read>();
  for (const name of file.tensors.keys()) {
    const { shape, data } = await file.read(name);
    tensors.set(name, { shape, data: data as Float32Array });
  }
  file.close();
  const { model, ...config } = JSON.parse(await Deno.readTextFile(`${folder}/adapter_config.json`));
  return { model, config, tensors };
}

/** Largest difference between a weight with the update scale B A, as a program would compute it, and the merged weight. */
function distance(
  weight: Float32Array,
  merged: Float32Array,
  update: (row: number, column: number) => number,
  columns: number,
): number {
  return weight.reduce((worst, w, k) => {
    const value = w + update(Math.floor(k / columns), k % columns);
    return Math.max(worst, Math.abs(value - merged[k]!));
  }, 0);
}

/** Rows of a head from llama.cpp's order, where rotary pairs are neighbours, to that of Hugging Face: a mistake here. */
function movedRows({ shape, data }: Read, headDim: number): Float32Array {
  const [rows, columns] = shape as [number, number];
  return Float32Array.from({ length: rows * columns }, (_, k) => {
    const [row, column] = [Math.floor(k / columns), k % columns];
    const place = row % headDim;
    const from = row - place + (place < headDim / 2 ? 2 * place : 2 * place - headDim + 1);
    return data[from * columns + column]!;
  });
}

Deno.test("gguf-adapter: metadata, names, types and shapes are those of llama.cpp's converter", () =>
  withTiny(async (files) => {
    const recipe = tinyRecipe(files, {
      student: { model: "teacher" },
      adapter: { rank: 4, alpha: 8, targets: ["q_proj", "down_proj"] },
    });
    const { setup, adapter, values, origin } = await trained(recipe);
    using _ = setup;
    const path = `${files.folder}/mine.gguf`;
    await writeAdapter(path, adapter, values, origin, "gguf-adapter");
    const expected = await fixture("gguf_adapter");
    const { metadata, tensors } = await readGguf(path);
    assertEquals(metadata, { ...expected.metadata, "general.name": "mine" });
    assertEquals(
      Object.fromEntries([...tensors].map(([name, { type, shape }]) => [name, { type, shape: [...shape] }])),
      expected.tensors,
    );
    // What does not change place is kept to the bit.
    const down = "model.layers.0.mlp.down_proj.lora_";
    assertEquals(tensors.get("blk.0.ffn_down.weight.lora_a")!.data, values.get(`${down}A.weight`));
    assertEquals(tensors.get("blk.0.ffn_down.weight.lora_b")!.data, values.get(`${down}B.weight`));

    const named = { ...origin, name: "Tiny", about: { license: "MIT" } };
    await writeAdapter(`${files.folder}/named.gguf`, adapter, values, named, "gguf-adapter");
    const about = (await readGguf(`${files.folder}/named.gguf`)).metadata;
    assertEquals([about["general.name"], about["general.license"]], ["Tiny", "MIT"]);
  }, { layers: 1 }));

/** Of one rank and scale, and of several. */
const settings = [
  { rank: 4, alpha: 8 },
  { rank: 4, alpha: 8, rslora: true, rankPattern: { k_proj: 2 }, alphaPattern: { q_proj: 3 } },
];

for (const plugin of adapters.filter((a) => a.plainLora)) {
  const fits = settings.filter((s) =>
    !s.rslora || ["rslora", "alpha"].every((needed) => plugin.settings!.includes(needed as "rslora"))
  );
  Deno.test(`${plugin.id}: llama.cpp's base + alpha / rank B A is the merged GGUF, tensor by tensor`, () =>
    withTiny(async (files) => {
      const base = `${files.folder}/base.gguf`;
      await writeTinyGguf(files.teacher, base, "F32");
      for (const [i, setting] of fits.entries()) {
        const recipe = tinyRecipe(files, {
          student: { model: "teacher" },
          adapter: { type: plugin.id, ...setting },
        });
        const { setup, adapter, student, values, origin } = await trained(recipe);
        using _ = setup;
        const [path, folder] = [`${files.folder}/adapter${i}.gguf`, `${files.folder}/merged${i}`];
        await writeAdapter(path, adapter, values, origin, "gguf-adapter");
        await writeMerged(folder, student, { adapter }, values);
        await writeTinyGguf(folder, `${folder}.gguf`, "F32");
        const { metadata, tensors } = await readGguf(path);
        const [weights, merged] = [
          (await readGguf(base)).tensors,
          (await readGguf(`${folder}.gguf`)).tensors,
        ];
        let adapted = 0;
        for (const [name, { shape, data }] of weights) {
          const [a, b] = ["a", "b"].map((side) => tensors.get(`${name}.lora_${side}`));
          const result = merged.get(name)!.data;
          if (!a || !b) {
            assertEquals(result, data, name);
            continue;
          }
          adapted++;
          const [rank, columns] = a.shape as [number, number];
          assertEquals([b.shape, shape], [[shape[0], rank], [shape[0], columns]], name);
          const scale = Number(metadata["adapter.lora.alpha"]) / rank;
          const update = (factor: Float32Array) => (row: number, column: number) => {
            let sum = 0;
            for (let r = 0; r < rank; r++) sum += factor[row * rank + r]! * a.data[r * columns + column]!;
            return scale * sum;
          };
          assert(distance(data, result, update(b.data), columns) < 1e-6, name);
          if (!/attn_[qk]\./.test(name)) continue;
          const mistaken = distance(data, result, update(movedRows(b, student.config.headDim)), columns);
          assertGreater(mistaken, 1e-3, `${name} with the rows of B as Hugging Face orders them`);
        }
        assertEquals([2 * adapted, adapted], [tensors.size, adapter.layers.length]);
      }
    }, { layers: 1 }));
}

for (const type of ["lora", "dora"]) {
  Deno.test(`mlx: config, keys and shapes of ${type} are mlx-lm's, and the values are kept to the bit`, () =>
    withTiny(async (files) => {
      const recipe = tinyRecipe(files, {
        student: { model: "teacher" },
        adapter: { type, rank: 4, alpha: 8, targets: ["q_proj", "down_proj"] },
      });
      const { setup, adapter, values, origin } = await trained(recipe);
      using _ = setup;
      await writeAdapter(`${files.folder}/mlx`, adapter, values, origin, "mlx");
      const { tensors: shapes, ...expected } = (await fixture("mlx_adapters"))[type];
      const { model, config, tensors } = await readMlx(`${files.folder}/mlx`);
      assertEquals([model, config], ["base", expected]);
      assertEquals(Object.fromEntries([...tensors].map(([name, { shape }]) => [name, [...shape]])), shapes);
      for (const { path, inFeatures, outFeatures } of adapter.layers) {
        const parameter = adapter.values(path, values).parameter;
        const transposed = (name: string, rows: number, columns: number) =>
          Float32Array.from(
            { length: rows * columns },
            (_, k) => parameter(name)[(k % rows) * columns + Math.floor(k / rows)]!,
          );
        assertEquals(tensors.get(`${path}.lora_a`)!.data, transposed("A", 4, inFeatures));
        assertEquals(tensors.get(`${path}.lora_b`)!.data, transposed("B", outFeatures, 4));
        if (type === "dora") assertEquals(tensors.get(`${path}.m`)!.data, parameter("magnitude"));
      }
    }, { layers: 1 }));
}

for (const plugin of adapters.filter((a) => a.plainLora || a.id === "dora")) {
  const fits = settings.filter((s) =>
    !s.rslora || ["rslora", "alpha"].every((needed) => plugin.settings!.includes(needed as "rslora"))
  );
  Deno.test(`${plugin.id}: what mlx-lm computes is the merged weight`, () =>
    withTiny(async (files) => {
      for (const [i, setting] of fits.entries()) {
        const recipe = tinyRecipe(files, {
          student: { model: "teacher" },
          adapter: { type: plugin.id, ...setting },
        });
        const { setup, adapter, student, values, origin } = await trained(recipe);
        using _ = setup;
        const folder = `${files.folder}/mlx${i}`;
        await writeAdapter(folder, adapter, values, origin, "mlx");
        const { config, tensors } = await readMlx(folder);
        const { rank, scale } = config.lora_parameters;
        for (const { path, inFeatures, outFeatures } of adapter.layers) {
          const [a, b, m] = ["lora_a", "lora_b", "m"].map((leaf) => tensors.get(`${path}.${leaf}`));
          assertEquals([a!.shape, b!.shape], [[inFeatures, rank], [rank, outFeatures]]);
          const weight = (await student.read(`${path}.weight`)).data as Float32Array;
          const merged = (await adapter.merged(path, values))!;
          for (let o = 0; o < outFeatures; o++) {
            const row = Array.from({ length: inFeatures }, (_, i) => {
              let sum = 0;
              for (let r = 0; r < rank; r++) sum += a!.data[i * rank + r]! * b!.data[r * outFeatures + o]!;
              return weight[o * inFeatures + i]! + scale * sum;
            });
            const length = m ? m.data[o]! / Math.hypot(...row) : 1;
            row.forEach((v, i) => assertAlmostEquals(length * v, merged[o * inFeatures + i]!, 1e-6, path));
          }
        }
      }
    }, { layers: 1 }));
}

Deno.test("mlx: num_layers counts from the end, and keys are paths where the layers are not alike", () =>
  withTiny(async (files) => {
    const q = (layer: number) => `model.layers.${layer}.self_attn.q_proj`;
    const cases: [string[], number, string[]][] = [
      [["q_proj", "up_proj"], 3, ["mlp.up_proj", "self_attn.q_proj"]],
      [[q(1), q(2)], 2, ["self_attn.q_proj"]],
      [[q(2)], 1, ["self_attn.q_proj"]],
      [[q(0), q(1)], 3, [q(0), q(1)]],
      [[q(0), q(2)], 3, [q(0), q(2)]],
      [[q(1), q(2), "model.layers.2.mlp.up_proj"], 2, [q(1), q(2), "model.layers.2.mlp.up_proj"]],
    ];
    for (const [i, [targets, layers, keys]] of cases.entries()) {
      const recipe = tinyRecipe(files, { student: { model: "teacher" }, adapter: { targets } });
      const { setup, adapter, values, origin } = await trained(recipe);
      using _ = setup;
      await writeAdapter(`${files.folder}/mlx${i}`, adapter, values, origin, "mlx");
      const { config } = await readMlx(`${files.folder}/mlx${i}`);
      assertEquals([config.num_layers, config.lora_parameters.keys], [layers, keys]);
    }
  }));

Deno.test("an adapter that a program does not know is refused by name, and nothing is written", () =>
  withTiny(async (files) => {
    const cases: [string, AdapterForm, string][] = [
      ["dora", "gguf-adapter", '"dora" is no low-rank update'],
      ["hira", "gguf-adapter", '"hira" is no low-rank update'],
      ["hira", "mlx", '"hira" is neither a low-rank update of the weight nor DoRA'],
    ];
    for (const [type, form, says] of cases) {
      const { setup, adapter, values, origin } = await trained(tinyRecipe(files, { adapter: { type } }));
      using _ = setup;
      assertEquals(hasForm(adapter, form), false);
      const path = `${files.folder}/${type}-${form}.gguf`;
      const error = await assertRejects(
        () => writeAdapter(path, adapter, values, origin, form),
        InputError,
        says,
      );
      assert(/--target merged.*--target gguf/.test(error.hint!));
      await assertRejects(() => Deno.stat(path), Deno.errors.NotFound);
    }
  }));
