/** Adapters as a run trains, keeps and exports them. `fixtures/peft_layouts.json` holds configs, keys and shapes as PEFT 0.21.2 saves them. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { adapters } from "../../plugins/adapters/mod.ts";
import { writeAdapter } from "../../src/distill/export/adapter_files.ts";
import { exportRun } from "../../src/distill/export/export_run.ts";
import { writeMerged } from "../../src/distill/export/exports.ts";
import { Trainer } from "../../src/distill/program/trainer.ts";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import { InputError, LimbeckError } from "../../src/base/errors.ts";
import { openFile } from "../../src/formats/files.ts";
import { loraScaling, readPeftAdapter } from "../../src/formats/peft/peft.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import { builtins } from "../../plugins/mod.ts";
import { Registry } from "../../src/registry/registry.ts";
import { packBatch } from "../../src/text/packing.ts";
import { maxDifference, modelTest } from "../tensor/harness.ts";
import { runHere } from "../distill/tiny_run.ts";
import { tinyRecipe, tinySample, tinySetup, withTiny } from "../distill/tiny_model.ts";
import { trained } from "./trained_adapter.ts";

const layouts = JSON.parse(
  await Deno.readTextFile(new URL("fixtures/peft_layouts.json", import.meta.url)),
) as Record<string, { config: Record<string, unknown>; tensors: Record<string, number[]> }>;

async function tensorsOf(folder: string): Promise<Map<string, { shape: number[]; data: Float32Array }>> {
  const file = await SafetensorsFile.open(await openFile(`${folder}/adapter_model.safetensors`));
  const all = new Map<string, { shape: number[]; data: Float32Array }>();
  for (const name of file.tensors.keys()) {
    const { shape, data } = await file.read(name);
    all.set(name, { shape: [...shape], data: data as Float32Array });
  }
  file.close();
  return all;
}

/** What an adapter folder of plain LoRA adds to each weight. */
async function plainUpdates(folder: string): Promise<Map<string, Float64Array>> {
  const { settings, tensors } = await readPeftAdapter(folder);
  const updates = new Map<string, Float64Array>();
  for (const [name, a] of tensors) {
    if (!name.endsWith(".lora_A.weight")) continue;
    const path = name.slice(0, -".lora_A.weight".length);
    const b = tensors.get(`${path}.lora_B.weight`)!;
    const [rank, inFeatures] = a.shape as [number, number];
    const s = loraScaling(settings, path);
    updates.set(
      path,
      Float64Array.from({ length: b.shape[0]! * inFeatures }, (_, k) => {
        let sum = 0;
        for (let r = 0; r < rank; r++) {
          sum += Number(b.data[Math.floor(k / inFeatures) * rank + r]) *
            Number(a.data[r * inFeatures + k % inFeatures]);
        }
        return s * sum;
      }),
    );
  }
  return updates;
}

for (const name of Object.keys(layouts)) {
  Deno.test(`${name}: config, keys and shapes are those that PEFT saves, and the values are kept to the bit`, () =>
    withTiny(async ({ folder, ...files }) => {
      const recipe = tinyRecipe({ folder, ...files }, {
        student: { model: "teacher" },
        adapter: { type: name, rank: 4, alpha: 8, targets: ["q_proj", "down_proj"] },
      });
      const { setup, adapter, values, origin } = await trained(recipe);
      using _ = setup;
      await writeAdapter(`${folder}/adapter`, adapter, values, origin);
      const config = JSON.parse(await Deno.readTextFile(`${folder}/adapter/adapter_config.json`));
      assertEquals(config, { ...layouts[name]!.config, base_model_name_or_path: "base" });
      const tensors = await tensorsOf(`${folder}/adapter`);
      assertEquals(
        Object.fromEntries([...tensors].map(([key, { shape }]) => [key, shape])),
        layouts[name]!.tensors,
      );
      for (const [key, { data }] of tensors) {
        if (key === "base_model.vera_A") continue;
        const own = [...values].filter(([, v]) => String(v) === String(data));
        assertEquals(own.length >= 1, true, key);
      }
    }, { layers: 1 }));
}

for (const adapter of adapters.filter((a) => a.merge)) {
  modelTest(
    `${adapter.id}: the merged student is the student with its adapter`,
    (gpu) =>
      withTiny(async (files) => {
        const recipe = tinyRecipe(files, {
          student: { model: "teacher" },
          adapter: { type: adapter.id, rank: 4 },
          train: { steps: 4 },
        });
        const samples = [tinySample(20, 12, 1), tinySample(30, 20, 2)];
        const { setup, flat, values, student } = await trained(recipe);
        using _ = setup;
        const trainer = await Trainer.create(gpu, setup, planTraining(setup, gpu.description));
        trainer.setState(flat);
        const before = await trainer.evaluate(samples);
        await trainer.step(0, [packBatch(samples, 64)]);
        assertEquals((await trainer.collect())[0]!.nonFinite, false);
        trainer.destroy();
        const path = `${files.folder}/merged`;
        await writeMerged(path, student, setup, values);
        using plain = await tinySetup(tinyRecipe(files, { student: { model: path } }));
        const other = await Trainer.create(gpu, plain, planTraining(plain, gpu.description));
        other.setState((await plain.trainables.initialValues(1)).trained);
        const after = await other.evaluate(samples);
        other.destroy();
        for (const loss of ["cross-entropy", "forward-kl"]) {
          assertAlmostEquals(after.losses[loss]!, before.losses[loss]!, 2e-5, loss);
        }
      }, { layers: 1 }),
  );
}

Deno.test("exportRun() writes every form from the last checkpoint; what is frozen is made again", () =>
  withTiny(async (files) => {
    const registry = new Registry().addAll(builtins);
    const recipe = tinyRecipe(files, {
      adapter: { type: "pissa", rank: 3, rslora: true, rankPattern: { v_proj: 2 } },
      train: { steps: 4, checkpointEvery: 2, evaluateEvery: 0 },
      output: { merged: true },
    });
    const whole = `${files.folder}/whole`;
    assertEquals((await runHere(recipe, whole)).paths, {
      adapter: "adapter",
      base: "base",
      merged: "merged",
    });
    const parts = `${files.folder}/parts`;
    await runHere(recipe, parts, { control: (step) => (step === 2 ? "stop" : "run") });
    await runHere(recipe, parts, { resume: true });
    for (const file of ["adapter/adapter_model.safetensors", "merged/model.safetensors"]) {
      assertEquals(await Deno.readFile(`${parts}/${file}`), await Deno.readFile(`${whole}/${file}`));
    }
    const out = (name: string) => `${files.folder}/${name}`;
    for (const target of ["peft", "peft-plain", "merged"] as const) {
      assertEquals(await exportRun(parts, recipe, registry, out(target), target), 4);
      await assertRejects(
        () => exportRun(parts, recipe, registry, out(target), target),
        InputError,
        "already there",
      );
    }
    for (const target of ["gguf-adapter", "mlx", "limbeck"] as const) {
      const path = out(target === "gguf-adapter" ? "adapter.gguf" : target);
      assertEquals(await exportRun(parts, recipe, registry, path, target), 4);
    }
    const same = async (a: string, b: string) => assertEquals(await Deno.readFile(a), await Deno.readFile(b));
    await same(out("merged/model.safetensors"), `${whole}/merged/model.safetensors`);
    await same(out("peft/adapter_model.safetensors"), `${whole}/adapter/adapter_model.safetensors`);
    const config = JSON.parse(await Deno.readTextFile(out("peft-plain/adapter_config.json")));
    assertEquals([config.r, config.rank_pattern, config.alpha_pattern, config.use_rslora], [
      6,
      {},
      {},
      false,
    ]);
    assertAlmostEquals(config.lora_alpha, 6 * recipe.adapter.alpha / Math.sqrt(3), 1e-9);
    const [exact, padded] = [await plainUpdates(out("peft")), await plainUpdates(out("peft-plain"))];
    assertEquals([...exact.keys()], [...padded.keys()]);
    for (const [path, update] of exact) {
      assert(update.some((v) => v !== 0), path);
      assert(maxDifference(padded.get(path)!, update) < 1e-6, path);
    }
  }));

Deno.test("an adapter is refused by name where it has no such form", () =>
  withTiny(async (files) => {
    const { setup, adapter, values, origin } = await trained(
      tinyRecipe(files, { adapter: { type: "dora" } }),
    );
    using _ = setup;
    const error = await assertRejects(
      () => writeAdapter(`${files.folder}/a`, adapter, values, origin, "peft-plain"),
      InputError,
      '"dora" is no low-rank update',
    ) as InputError;
    assert(/vLLM and llama.cpp do not load DoRA.*--target merged/.test(error.hint!));
    assertThrows(() => Deno.statSync(`${files.folder}/a`), Deno.errors.NotFound);
  }));

Deno.test("settings that an adapter has no meaning for are refused by name, and ranks that do not fit", () =>
  withTiny(async (files) => {
    const wrong: [Record<string, unknown>, RegExp][] = [
      [{ type: "vera", rslora: true }, /"vera" cannot be combined with rslora/],
      [{ type: "miss", loraPlusRatio: 2 }, /"miss" cannot be combined with loraPlusRatio/],
      [{ type: "lora-fa", loraPlusRatio: 2 }, /"lora-fa" cannot be combined with loraPlusRatio/],
      [{ type: "olora", dropout: 0.1 }, /"olora" cannot be combined with dropout/],
      [{ type: "hira", alphaPattern: { v_proj: 2 } }, /"hira" cannot be combined with alphaPattern/],
      [{ type: "pissa", rank: 33 }, /rank 33 is more than/],
      [{ type: "vera", rankPattern: { v_proj: 2 } }, /all have one rank/],
      [{ type: "moslora", options: { mixer: "none" } }, /adapter.options.mixer/],
    ];
    for (const [adapter, says] of wrong) {
      const error = await assertRejects(
        async () => void (await tinySetup(tinyRecipe(files, { adapter }))),
        LimbeckError,
      );
      assert(says.test(error.message), error.message);
    }
  }));
