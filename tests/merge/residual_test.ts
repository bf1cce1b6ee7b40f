/** Instruction residuals, whole and as adapters, and extracted adapters. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertNotEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { toFloat32 } from "../../src/formats/dtype.ts";
import { openFile } from "../../src/formats/files.ts";
import { openModel } from "../../src/formats/open_model.ts";
import { loraScaling, readPeftAdapter } from "../../src/formats/peft/peft.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import { extractLora, writeResidualAdapter } from "../../src/merge/residual/extract.ts";
import { type ResidualModels, writeResidual } from "../../src/merge/residual/residual.ts";
import { TINY_VOCABULARY, tinyTokenizerJson, writeTinyModel } from "../distill/tiny_model.ts";
import { sharedPath, sharedTest } from "../shared.ts";
import { assertWithin } from "../tensor/harness.ts";
import { inFolder } from "./in_folder.ts";
import { product } from "./products.ts";

const EMBEDDING = "model.embed_tokens.weight";

/** Every tensor of a model in f32. */
async function valuesOf(path: string): Promise<Map<string, Float32Array>> {
  const model = await openModel(path);
  const values = new Map<string, Float32Array>();
  for (const name of model.tensors.keys()) {
    const { dtype, data } = await model.read(name);
    values.set(name, toFloat32(dtype, data));
  }
  model.close();
  return values;
}

/** scaling B A of every module of an adapter. */
async function updatesOf(path: string): Promise<Map<string, Float64Array>> {
  const { settings, tensors } = await readPeftAdapter(path);
  const modules = [...tensors.keys()].filter((name) => name.endsWith(".lora_A.weight"))
    .map((name) => name.slice(0, -".lora_A.weight".length));
  return new Map(modules.map((module) => {
    const [a, b] = [tensors.get(`${module}.lora_A.weight`)!, tensors.get(`${module}.lora_B.weight`)!];
    const scale = loraScaling(settings, module);
    return [
      module,
      product(b.data, a.data, b.shape[0]!, b.shape[1]!, a.shape[1]!).map((x) => scale * x),
    ];
  }));
}

const mergekit = (path: string) => sharedPath(`goldens/mergekit/${path}`);
const inputs = (names: ResidualModels): ResidualModels => ({
  base: mergekit(`inputs/${names.base}`),
  instruct: mergekit(`inputs/${names.instruct}`),
  newBase: mergekit(`inputs/${names.newBase}`),
});
const GOLDEN = { base: "base", instruct: "ft2", newBase: "base2" };

sharedTest(
  "the residual of the reference models is what was computed for them",
  () =>
    inFolder(async (folder) => {
      const result = await writeResidual(inputs(GOLDEN), `${folder}/new`);
      assertEquals([result.dtype, result.keptRows], ["f32", 0]);
      const expected = await SafetensorsFile.open(await openFile(mergekit("expected/residual.safetensors")));
      const values = await valuesOf(`${folder}/new`);
      assertEquals([...values.keys()].sort(), [...expected.tensors.keys()].sort());
      for (const [name, found] of values) {
        assertWithin(found, (await expected.read(name)).data as Float32Array, 2e-6, name);
      }
      expected.close();
    }),
);

sharedTest(
  "residuals as adapters: products, singular values, errors and shares are the reference's",
  () =>
    inFolder(async (folder) => {
      const open = async (path: string) =>
        await SafetensorsFile.open(await openFile(mergekit(`residuals/${path}`)));
      const [products, singularValues] = [
        await open("low_rank.safetensors"),
        await open("singular_values.safetensors"),
      ];
      const golden = JSON.parse(await Deno.readTextFile(mergekit("residuals/residuals.json")));
      for (const [name, expected] of Object.entries<Record<string, unknown>>(golden.low_rank)) {
        const rank = Number(name.slice(1));
        const result = await writeResidualAdapter(inputs(GOLDEN), `${folder}/${name}`, { rank });
        assert(Math.abs(result.total - Number(expected.total_relative_frobenius_error)) < 1e-5);
        assert(Math.abs(result.shareOutside - golden.share_of_squared_norm_outside_the_adapter) < 1e-5);
        const errors = expected.relative_frobenius_error as Record<string, number>;
        assertEquals(Object.keys(errors).length, Object.keys(result.byModule).length);
        for (const [module, update] of await updatesOf(`${folder}/${name}`)) {
          const { data } = await products.read(`${name}.${module}.weight`);
          assertWithin(update, data as Float32Array, 1e-5, `${name} ${module}`);
          assert(Math.abs(result.byModule[module]! - errors[`${module}.weight`]!) < 1e-5, module);
          // Of what is left out the singular values tell too.
          const values = (await singularValues.readArray(`${module}.weight`)).data as Float64Array;
          const squares = (part: Float64Array) => part.reduce((sum, value) => sum + value * value, 0);
          const left = Math.sqrt(squares(values.slice(rank)) / squares(values));
          assert(Math.abs(result.byModule[module]! - left) < 1e-5, module);
        }
        assertEquals(result.byLayer.length, 4);
      }
      for (const file of [products, singularValues]) file.close();
    }),
);

sharedTest(
  "what the reference refuses is refused with its reason, and --common-rows does what it says there",
  () =>
    inFolder(async (folder) => {
      const swapped = `${folder}/swapped`;
      await Deno.mkdir(swapped);
      for (const name of ["config.json", "model.safetensors"]) {
        await Deno.copyFile(mergekit(`inputs/ft2/${name}`), `${swapped}/${name}`);
      }
      await Deno.copyFile(mergekit("residuals/swapped_tokenizer.json"), `${swapped}/tokenizer.json`);
      const expected = await SafetensorsFile.open(
        await openFile(mergekit("residuals/common_rows.safetensors")),
      );
      const cases = [
        {
          models: inputs({ ...GOLDEN, instruct: "ft_vocab" }),
          why: "vocab_size 515 against 512",
          rows: "instruct_longer",
        },
        {
          models: inputs({ ...GOLDEN, newBase: "ft_vocab" }),
          why: "vocab_size 515 against 512",
          rows: "new_base_longer",
        },
        { models: { ...inputs(GOLDEN), instruct: swapped }, why: "token 300 is" },
        {
          models: { ...inputs(GOLDEN), newBase: sharedPath("models/stories260K") },
          why: "another kind of model",
        },
      ];
      for (const { models, why, rows } of cases) {
        const output = `${folder}/new`;
        for (
          const write of [writeResidual, (m: ResidualModels, o: string) =>
            writeResidualAdapter(m, o, { rank: 2 })]
        ) {
          await assertRejects(
            () =>
              write(models, output),
            InputError,
            why,
          );
        }
        await assertRejects(() => Deno.stat(output), Deno.errors.NotFound);
        if (!rows) continue;
        const result = await writeResidual(models, output, { commonRows: true });
        const values = await valuesOf(output);
        assertEquals(values.get(EMBEDDING), (await expected.read(rows)).data as Float32Array);
        assertEquals(result.keptRows, values.get(EMBEDDING)!.length / 64 - 512);
        const plain = await valuesOf(models.newBase);
        assertEquals([...values.keys()].sort(), [...plain.keys()].sort());
        await Deno.remove(output, { recursive: true });
      }
      await assertRejects(
        () => writeResidual(cases[3]!.models, `${folder}/new`, { commonRows: true }),
        InputError,
        "another kind of model",
      );
      // Two tokens exchanged: rows are found by their tokens, not by their numbers.
      await writeResidual({ ...inputs(GOLDEN), instruct: swapped }, `${folder}/new`, { commonRows: true });
      const [base, instruct, newBase, found] = await Promise.all(
        [...["base", "ft2", "base2"].map((name) => mergekit(`inputs/${name}`)), `${folder}/new`].map(
          valuesOf,
        ),
      ).then((all) => all.map((values) => values.get(EMBEDDING)!));
      for (const [row, other] of [[299, 299], [300, 301], [301, 300]] as const) {
        for (let i = 0; i < 64; i++) {
          const sum = newBase![row * 64 + i]! + (instruct![other * 64 + i]! - base![row * 64 + i]!);
          assert(Math.abs(found![row * 64 + i]! - sum) < 1e-6, `row ${row}`);
        }
      }
      expected.close();
    }),
);

/** A base, what tuning made of it, and another base; small, and of a size that no piece divides. */
async function withThree(
  body: (folder: string, models: ResidualModels) => Promise<void>,
  options: Parameters<typeof writeTinyModel>[1] = {},
): Promise<void> {
  await inFolder(async (folder) => {
    const models = { base: `${folder}/base`, instruct: `${folder}/instruct`, newBase: `${folder}/new-base` };
    for (const [i, path] of Object.values(models).entries()) {
      await writeTinyModel(path, { layers: 2, seed: i + 1, ...options });
    }
    await body(folder, models);
  });
}

Deno.test("a residual is new base + scale (instruct - base), rounded once, in the new base's storage", () =>
  withThree(async (folder, models) => {
    const told: string[] = [];
    const result = await writeResidual(models, `${folder}/new`, {
      scale: 0.5,
      onProgress: (done, total, name) => told.push(`${done}/${total} ${name}`),
    });
    assertEquals(result.dtype, "bf16");
    const [base, instruct, newBase, found] = await Promise.all(
      [models.base, models.instruct, models.newBase, `${folder}/new`].map(valuesOf),
    );
    for (const [name, values] of found!) {
      for (const [i, value] of values.entries()) {
        const exact = newBase!.get(name)![i]! + 0.5 * (instruct!.get(name)![i]! - base!.get(name)![i]!);
        assert(Math.abs(value - exact) <= Math.abs(exact) / 256 + 1e-9, `${name} ${i}: ${value}, ${exact}`);
      }
    }
    const total = [...found!.values()].reduce((sum, values) => sum + values.length, 0);
    assert(told.at(-1)!.startsWith(`${total}/${total} `), told.at(-1));
    const card = await Deno.readTextFile(`${folder}/new/README.md`);
    assertStringIncludes(card, "new base + 0.5 (instruct - base)");
    const model = await openModel(models.instruct);
    assertStringIncludes(card, await model.fingerprint());
    model.close();
  }, { dtype: "bf16" }));

Deno.test("where instruct is the base, the new base comes out bit for bit; where the new base is the base, instruct", () =>
  withThree(async (folder, models) => {
    await writeResidual({ ...models, instruct: models.base }, `${folder}/same`);
    assertEquals(await valuesOf(`${folder}/same`), await valuesOf(models.newBase));
    await writeResidual({ ...models, newBase: models.base }, `${folder}/instruct-again`);
    const [found, instruct] = [await valuesOf(`${folder}/instruct-again`), await valuesOf(models.instruct)];
    for (const [name, values] of found) assertWithin(values, instruct.get(name)!, 1e-6, name);
  }));

Deno.test("a residual keeps the instruct model's template and its end of a turn", () =>
  withThree(async (folder, models) => {
    await Deno.writeTextFile(`${models.instruct}/chat_template.jinja`, "{{ messages }}");
    const config = JSON.parse(await Deno.readTextFile(`${models.instruct}/config.json`));
    await Deno.writeTextFile(
      `${models.instruct}/config.json`,
      JSON.stringify({ ...config, eos_token_id: [2, 9] }),
    );
    await writeResidual(models, `${folder}/new`);
    assertEquals(await Deno.readTextFile(`${folder}/new/chat_template.jinja`), "{{ messages }}");
    assertEquals(JSON.parse(await Deno.readTextFile(`${folder}/new/config.json`)).eos_token_id, [2, 9]);
  }));

Deno.test("an adapter of full rank is the whole difference; of rank 3 it is as good as a matrix of rank 3 can be", () =>
  withThree(async (folder, models) => {
    const whole = await extractLora(models.base, models.instruct, `${folder}/whole`, { rank: 999 });
    assert(whole.total < 1e-6, `relative error ${whole.total}`);
    const [base, tuned] = [await valuesOf(models.base), await valuesOf(models.instruct)];
    const difference = (module: string) =>
      tuned.get(`${module}.weight`)!.map((w, i) => w - base.get(`${module}.weight`)![i]!);
    const updates = await updatesOf(`${folder}/whole`);
    assertEquals(updates.size, 14);
    for (const [module, update] of updates) assertWithin(update, difference(module), 2e-6, module);
    const { settings } = await readPeftAdapter(`${folder}/whole`);
    assertEquals(settings.baseModel, models.base);

    const some = await extractLora(models.base, models.instruct, `${folder}/some`, { rank: 3 });
    let [left, of] = [0, 0];
    for (const [module, update] of await updatesOf(`${folder}/some`)) {
      const exact = difference(module);
      const squares = update.reduce((sum, x, i) => sum + (x - exact[i]!) ** 2, 0);
      const whole = exact.reduce((sum, x) => sum + x * x, 0);
      assert(Math.abs(Math.sqrt(squares / whole) - some.byModule[module]!) < 1e-5, module);
      [left, of] = [left + squares, of + whole];
    }
    assert(Math.abs(Math.sqrt(left / of) - some.total) < 1e-5);
    const outside = [...tuned].filter(([name]) => !name.includes("_proj"))
      .reduce((sum, [name, w]) => sum + w.reduce((s, x, i) => s + (x - base.get(name)![i]!) ** 2, 0), 0);
    assert(Math.abs(outside / (outside + of) - some.shareOutside) < 1e-6);
    assertNotEquals(some.byLayer[0], some.byLayer[1]);
    const nothing = await extractLora(models.base, models.base, `${folder}/nothing`, { rank: 2 });
    assertEquals([nothing.total, nothing.shareOutside], [0, 0]);
  }));

Deno.test("a grown vocabulary is refused by residual, changed by token with commonRows, and no matter to extraction", () =>
  withThree(async (folder, models) => {
    await Deno.remove(models.newBase, { recursive: true });
    await writeTinyModel(models.newBase, { layers: 2, seed: 7, vocabularySize: TINY_VOCABULARY + 2 });
    const output = `${folder}/new`;
    await assertRejects(
      () => writeResidual(models, output),
      InputError,
      `vocab_size ${TINY_VOCABULARY + 2} against ${TINY_VOCABULARY}`,
    );
    const { keptRows } = await writeResidual(models, output, { commonRows: true });
    assertEquals(keptRows, 2);
    const [newBase, found] = [await valuesOf(models.newBase), await valuesOf(output)];
    const end = (values: Map<string, Float32Array>) => values.get(EMBEDDING)!.slice(-2 * 32);
    assertEquals(end(found), end(newBase));
    await extractLora(models.base, models.newBase, `${folder}/adapter`, { rank: 2 });

    // A token that base and new base have, but not the instruct model, keeps its row too.
    const smaller = `${folder}/smaller`;
    await writeTinyModel(smaller, { layers: 2, seed: 8, vocabularySize: TINY_VOCABULARY - 1 });
    const less = await writeResidual({ ...models, instruct: smaller }, `${folder}/less`, {
      commonRows: true,
    });
    assertEquals(less.keptRows, 3);
    const last = (values: Map<string, Float32Array>) => values.get(EMBEDDING)!.slice(-3 * 32);
    assertEquals(last(await valuesOf(`${folder}/less`)), last(newBase));

    const tokenizer = tinyTokenizerJson() as { model: { vocab: Record<string, number> } };
    // A token that only the instruct model has is lost, and that is said.
    const more = `${folder}/more`;
    await writeTinyModel(more, { layers: 2, seed: 9, vocabularySize: TINY_VOCABULARY + 1 });
    const added = { id: TINY_VOCABULARY, content: "<|turn|>", special: true, normalized: false };
    const json = tinyTokenizerJson() as { added_tokens: unknown[] };
    json.added_tokens.push(added);
    await Deno.writeTextFile(`${more}/tokenizer.json`, JSON.stringify(json));
    const { notes } = await writeResidual(
      { ...models, instruct: more, newBase: models.base },
      `${folder}/lost`,
      {
        commonRows: true,
      },
    );
    assertStringIncludes(
      notes.join("\n"),
      `tokens of ${more} that not all three models have: 1, such as "<|turn|>"`,
    );

    const { a, b } = tokenizer.model.vocab;
    Object.assign(tokenizer.model.vocab, { a: b, b: a });
    await Deno.writeTextFile(`${models.instruct}/tokenizer.json`, JSON.stringify(tokenizer));
    await assertRejects(
      () => writeResidual({ ...models, newBase: models.base }, `${folder}/other`),
      InputError,
      `token ${a} is`,
    );
  }));

Deno.test("nothing is left behind by bad input or a stop half-way", () =>
  withThree(async (folder, models) => {
    const before = [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
    const output = `${folder}/new`;
    const stop = new AbortController();
    await assertRejects(
      () =>
        writeResidual(models, output, {
          signal: stop.signal,
          onProgress: () => stop.abort(new Error("stopped")),
        }),
      Error,
      "stopped",
    );
    await assertRejects(
      () =>
        writeResidualAdapter(models, output, { rank: 2, signal: AbortSignal.abort(new Error("stopped")) }),
      Error,
      "stopped",
    );
    const file = `${models.instruct}/model.safetensors`;
    const bytes = await Deno.readFile(file);
    new DataView(bytes.buffer).setFloat32(bytes.length - 4, NaN, true);
    await Deno.writeFile(file, bytes);
    const name = /(are|is) NaN|NaN or infinite|not finite/;
    for (
      const write of [
        writeResidual,
        (m: ResidualModels, o: string) => writeResidualAdapter(m, o, { rank: 2 }),
      ]
    ) {
      const error = await assertRejects(() => write(models, output), InputError, "of tensor model.");
      assert(name.test(error.message), error.message);
    }
    await assertRejects(() => writeResidual(models, models.newBase), InputError, "is already there");
    await assertRejects(
      () => writeResidual({ ...models, base: `${folder}/nowhere` }, output),
      InputError,
      "no such file",
    );
    await assertRejects(() => writeResidual({ ...models, base: `${folder}/three` }, output), InputError);
    assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name).sort(), before);

    await writeTinyModel(`${folder}/deep`, { layers: 3 });
    await assertRejects(
      () => writeResidual({ ...models, newBase: `${folder}/deep` }, output),
      InputError,
      "has 3 layers, not 2",
    );
  }));
