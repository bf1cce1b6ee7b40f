/** Merging adapters: against figures made with PEFT, identities, and what is refused. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { openFile } from "../../src/formats/files.ts";
import { openModel } from "../../src/formats/open_model.ts";
import {
  loraScaling,
  type LoraSettings,
  readPeftAdapter,
  writePeftAdapter,
} from "../../src/formats/peft/peft.ts";
import { SafetensorsFile, type TensorData } from "../../src/formats/safetensors/safetensors.ts";
import { writeAdaptedModel } from "../../src/merge/adapters/adapted_model.ts";
import { type AdapterMerge, mergeAdapters, writeMergedAdapter } from "../../src/merge/adapters/adapters.ts";
import { writeTinyModel } from "../distill/tiny_model.ts";
import { sharedPath, sharedTest } from "../shared.ts";
import { assertWithin, randomArray } from "../tensor/harness.ts";
import { figures } from "./figures.ts";
import { inFolder } from "./in_folder.ts";
import { product } from "./products.ts";

const Q = "model.layers.0.self_attn.q_proj";
const V = "model.layers.0.self_attn.v_proj";
const OUT = 6;
const IN = 5;

/** Factors of one module from a seed. */
function factors(
  module: string,
  rank: number,
  seed: number,
  [out, inSize] = [OUT, IN],
): [string, TensorData][] {
  const tensor = (shape: number[], seed: number): TensorData => ({
    dtype: "f32",
    shape,
    data: Float32Array.from(randomArray(shape[0]! * shape[1]!, seed)),
  });
  return [
    [`${module}.lora_A.weight`, tensor([rank, inSize!], seed)],
    [`${module}.lora_B.weight`, tensor([out!, rank], seed + 1)],
  ];
}

async function write(
  path: string,
  tensors: readonly [string, TensorData][],
  changes: Partial<LoraSettings> = {},
): Promise<string> {
  const settings = { rank: 2, alpha: 4, targetModules: ["q_proj", "v_proj"], baseModel: "base", ...changes };
  await writePeftAdapter(path, { settings, tensors: new Map(tensors) });
  return path;
}

/** scaling B A of a module of an adapter on disk. */
async function update(path: string, module = Q): Promise<Float64Array> {
  const { settings, tensors } = await readPeftAdapter(path);
  const [a, b] = [tensors.get(`${module}.lora_A.weight`)!, tensors.get(`${module}.lora_B.weight`)!];
  const scale = loraScaling(settings, module);
  return product(b.data, a.data, b.shape[0]!, b.shape[1]!, a.shape[1]!).map((x) => scale * x);
}

const sum = (parts: readonly (readonly [number, Float64Array])[]) =>
  parts[0]![1].map((_, i) => parts.reduce((total, [weight, values]) => total + weight * values[i]!, 0));

const merge = (
  paths: readonly string[],
  weights: readonly number[],
  method: AdapterMerge["method"],
  rank?: number,
) => ({
  adapters: paths.map((path, i) => ({ path, weight: weights[i]! })),
  method,
  rank,
});

/** Ranks, scalings and cases of figures that PEFT's add_weighted_adapter was run for. */
interface Figures {
  readonly alpha: Readonly<Record<string, number>>;
  readonly rank: Readonly<Record<string, number>>;
  readonly cases: Readonly<Record<string, { inputs: string[]; weights: number[]; rank: number }>>;
}

async function compareWithPeft(inputs: SafetensorsFile, expected: SafetensorsFile, figures: Figures) {
  await inFolder(async (folder) => {
    const path = (name: string) => `${folder}/${name}`;
    for (const [name, rank] of Object.entries(figures.rank)) {
      await write(path(name), [
        [`${Q}.lora_A.weight`, await inputs.read(`${name}.A`)],
        [`${Q}.lora_B.weight`, await inputs.read(`${name}.B`)],
      ], { rank, alpha: figures.alpha[name]! });
    }
    for (const [name, { inputs: names, weights, rank }] of Object.entries(figures.cases)) {
      const method = name === "cat" ? "cat" : name.startsWith("svd") ? "svd" : "linear";
      const merged = await writeMergedAdapter(
        merge(names.map(path), weights, method, method === "svd" ? rank : undefined),
        path(name),
      );
      assertEquals(merged.modules[0]!.rank, rank);
      const delta = (await expected.readArray(`${name}.delta`)).data as Float64Array;
      assertWithin(await update(path(name)), delta, method === "svd" ? 1e-5 : 2e-6, name);
      if (method !== "svd") continue;
      const values = (await expected.readArray(`${name}.singular_values`)).data as Float64Array;
      const squares = (part: Float64Array) => part.reduce((total, value) => total + value * value, 0);
      const error = Math.sqrt(squares(values.slice(rank)) / squares(values));
      assert(Math.abs(merged.total - error) < 1e-6, `relative error ${merged.total}, expected ${error}`);
    }
  });
}

Deno.test("cat, svd and linear are PEFT's add_weighted_adapter", async () => {
  using file = await figures();
  await compareWithPeft(file, file, {
    rank: { lora1: 4, lora2: 4, lora3: 2 },
    alpha: { lora1: 8, lora2: 4, lora3: 8 },
    cases: {
      cat: { inputs: ["lora1", "lora2", "lora3"], weights: [0.7, -0.4, 0.5], rank: 10 },
      svd_r4: { inputs: ["lora1", "lora2", "lora3"], weights: [0.7, -0.4, 0.5], rank: 4 },
      peft_linear: { inputs: ["lora1", "lora2"], weights: [0.7, -0.4], rank: 4 },
    },
  });
});

sharedTest("cat, svd and linear are PEFT's add_weighted_adapter in all of the reference", async () => {
  const open = async (path: string) => await SafetensorsFile.open(await openFile(sharedPath(path)));
  const inputs = await open("goldens/merges/inputs.safetensors");
  const expected = await open("goldens/merges/lora_expected.safetensors");
  const { lora } = JSON.parse(await Deno.readTextFile(sharedPath("goldens/merges/merges.json")));
  await compareWithPeft(inputs, expected, lora);
  for (const file of [inputs, expected]) file.close();
});

Deno.test("cat of one adapter is that adapter, bit for bit", () =>
  inFolder(async (folder) => {
    const one = await write(`${folder}/one`, [...factors(Q, 2, 1), ...factors(V, 3, 5)], {
      rankPattern: { [V]: 3 },
      alphaPattern: { [V]: 5 },
    });
    await writeMergedAdapter(merge([one], [1], "cat"), `${folder}/same`);
    const [before, after] = [await readPeftAdapter(one), await readPeftAdapter(`${folder}/same`)];
    assertEquals(after.tensors, before.tensors);
    for (const module of [Q, V]) {
      assertEquals(loraScaling(after.settings, module), loraScaling(before.settings, module));
    }
    assertEquals(after.settings.baseModel, "base");
  }));

Deno.test("cat adds updates exactly, whatever their ranks, scalings and modules; weights may be negative or 0", () =>
  inFolder(async (folder) => {
    const one = await write(`${folder}/one`, [...factors(Q, 2, 1), ...factors(V, 2, 3)]);
    const two = await write(`${folder}/two`, factors(Q, 4, 7), { rank: 4, alpha: 3, rsLora: true });
    const three = await write(`${folder}/three`, factors(Q, 1, 9), { rank: 1, alpha: 1 });
    const output = `${folder}/all`;
    const merged = await writeMergedAdapter(merge([one, two, three], [0.5, -1.5, 0], "cat"), output);
    assertEquals(merged.modules.map(({ path, rank }) => [path, rank]), [[Q, 6], [V, 2]]);
    assertWithin(
      await update(output),
      sum([[0.5, await update(one)], [-1.5, await update(two)]]),
      1e-6,
      "q_proj",
    );
    assertWithin(await update(output, V), sum([[0.5, await update(one, V)]]), 1e-6, "v_proj");
    // Weights of one size, whatever their sign, need no factor in A.
    await writeMergedAdapter(merge([one, one], [1, -1], "cat"), `${folder}/nothing`);
    assertEquals([...await update(`${folder}/nothing`)], Array(OUT * IN).fill(0));
  }));

Deno.test("svd of full rank is the sum, of a lower one the best approximation with its error", () =>
  inFolder(async (folder) => {
    const one = await write(`${folder}/one`, factors(Q, 2, 1));
    const two = await write(`${folder}/two`, factors(Q, 2, 11));
    const whole = await writeMergedAdapter(merge([one, two], [1, -0.5], "svd", 9), `${folder}/whole`);
    const exact = sum([[1, await update(one)], [-0.5, await update(two)]]);
    assertEquals(whole.modules[0]!.rank, 4);
    assert(whole.total < 1e-7, `relative error ${whole.total}`);
    assertWithin(await update(`${folder}/whole`), exact, 1e-6, "full rank");
    const some = await writeMergedAdapter(merge([one, two], [1, -0.5], "svd", 2), `${folder}/some`);
    const near = await update(`${folder}/some`);
    const norm = (values: Float64Array) => Math.sqrt(values.reduce((total, v) => total + v * v, 0));
    const error = norm(near.map((v, i) => v - exact[i]!)) / norm(exact);
    assert(Math.abs(error - some.total) < 1e-6, `${error} measured, ${some.total} told`);
    assert(error > 0.01, `nothing is left out: ${error}`);
    assertEquals(some.errors, { [Q]: some.total });
    // Both with the same factor, 2.
    await writeMergedAdapter(merge([one, two], [1, 1], "svd", 9), `${folder}/alike`);
    assertWithin(
      await update(`${folder}/alike`),
      sum([[1, await update(one)], [1, await update(two)]]),
      1e-6,
      "alike",
    );
    // More columns than the layer has rows: the sum itself is decomposed.
    const many = await mergeAdapters(merge([one, two, one], [1, -0.5, 0.25], "svd", 2));
    assertEquals(many.modules[0]!.rank, 2);
  }));

Deno.test("adapters merge into their base model as PEFT would, tied head or not", () =>
  inFolder(async (folder) => {
    const base = `${folder}/base`;
    await writeTinyModel(base, { dtype: "bf16", tiedHead: true });
    const model = await openModel(base);
    const [out, inSize] = model.tensors.get(`${Q}.weight`)!.shape;
    const one = await write(`${folder}/one`, factors(Q, 2, 1, [out!, inSize!]));
    const two = await write(`${folder}/two`, factors(Q, 2, 11, [out!, inSize!]));
    const output = `${folder}/merged`;
    await writeAdaptedModel(base, merge([one, two], [1, -1], "cat"), output, { dtype: "f32" });
    const merged = await openModel(output);
    assertEquals([...merged.tensors.keys()].sort(), [...model.tensors.keys()].sort());
    const before = await model.read(`${Q}.weight`);
    const after = await merged.read(`${Q}.weight`);
    const added = sum([[1, await update(one)], [-1, await update(two)]]);
    const weight = Float32Array.from(
      before.data,
      (bits) => new Float32Array(Uint32Array.of(bits << 16).buffer)[0]!,
    );
    assertWithin(after.data as Float32Array, weight.map((w, i) => w + added[i]!), 1e-6, "q_proj");
    const untouched = await model.read(`${V}.weight`);
    assertEquals(
      Array.from((await merged.read(`${V}.weight`)).data),
      Array.from(untouched.data, (bits) => new Float32Array(Uint32Array.of(bits << 16).buffer)[0]!),
    );
    for (const opened of [model, merged]) opened.close();

    const head = await write(`${folder}/head`, factors("lm_head", 2, 3, [7, 5]), {
      targetModules: ["lm_head"],
    });
    await assertRejects(
      () => writeAdaptedModel(base, merge([head], [1], "cat"), `${folder}/no`),
      InputError,
      "has no linear layer lm_head",
    );
    assertEquals(await exists(`${folder}/no`), false);
  }));

Deno.test("adapters of copies of one base name one base, those of other models are told of", () =>
  inFolder(async (folder) => {
    for (const [name, seed] of [["base", 1], ["copy", 1], ["other", 2]] as const) {
      await writeTinyModel(`${folder}/${name}`, { seed });
    }
    const adapters = new Map<string, string>();
    const of = async (baseModel: string) => {
      const path = `${folder}/adapter-${adapters.size}`;
      adapters.set(baseModel, adapters.get(baseModel) ?? await write(path, factors(Q, 2, 1), { baseModel }));
      return adapters.get(baseModel)!;
    };
    const notes = async (...bases: string[]) => {
      const paths: string[] = [];
      for (const base of bases) paths.push(await of(base));
      return (await mergeAdapters(merge(paths, [1, 1], "cat"))).notes.join();
    };
    const [base, copy, other] = ["base", "copy", "other"].map((name) => `${folder}/${name}`);
    assertEquals(await notes(base!, copy!), "");
    assertMatch(await notes(base!, other!), /different base models: .*base, .*other;/);
    // Of what is not here the name is all that is known.
    assertMatch(await notes("someone/base", copy!), /different base models: someone\/base, .*copy;/);
    assertEquals(await notes("someone/base", "someone/base"), "");
  }));

const exists = (path: string) => Deno.stat(path).then(() => true, () => false);

Deno.test("what is no plain LoRA, or does not fit, is refused by name, and nothing is written", () =>
  inFolder(async (folder) => {
    const one = await write(`${folder}/one`, factors(Q, 2, 1));
    const output = `${folder}/out`;
    const refuses = async (merge: AdapterMerge, message: string) => {
      await assertRejects(() => writeMergedAdapter(merge, output), InputError, message);
      assertEquals(await exists(output), false);
    };
    const magnitude: [string, TensorData] = [`${Q}.lora_magnitude_vector`, {
      dtype: "f32",
      shape: [OUT],
      data: new Float32Array(OUT).fill(1),
    }];
    const dora = await write(`${folder}/dora`, [...factors(Q, 2, 1), magnitude], { dora: true });
    await refuses(merge([one, dora], [1, 1], "cat"), "is a DoRA adapter");
    const config = JSON.parse(await Deno.readTextFile(`${one}/adapter_config.json`));
    const other = async (name: string, changes: Record<string, unknown>) => {
      await Deno.mkdir(`${folder}/${name}`);
      await Deno.copyFile(`${one}/adapter_model.safetensors`, `${folder}/${name}/adapter_model.safetensors`);
      await Deno.writeTextFile(
        `${folder}/${name}/adapter_config.json`,
        JSON.stringify({ ...config, ...changes }),
      );
      return `${folder}/${name}`;
    };
    await refuses(merge([await other("vera", { peft_type: "VERA" })], [1], "cat"), 'peft_type "VERA"');
    const own = await other("hira", {
      peft_type: undefined,
      format: "limbeck-adapter",
      adapter: { id: "hira" },
    });
    await refuses(merge([own], [1], "cat"), 'the adapter "hira" in Limbeck\'s own layout is no plain LoRA');
    const wide = await write(`${folder}/wide`, factors(Q, 2, 1, [OUT, IN + 1]));
    await refuses(merge([one, wide], [1, 1], "cat"), `${Q} is [6, 6], not [6, 5]`);
    const larger = await write(`${folder}/larger`, factors(Q, 3, 1), { rank: 3 });
    await refuses(merge([one, larger], [1, 1], "linear"), "has rank 2 in one adapter and 3 in another");
    await refuses(merge([one, larger], [0, 0], "cat"), "every weight is 0");
    await refuses(merge([`${folder}/nowhere`], [1], "cat"), "there is no such file");
    await assertRejects(
      () => writeMergedAdapter(merge([one], [1], "cat"), one),
      InputError,
      "is already there",
    );
  }));
