/** Whole runs between models of other families than Llama: what they learn, and what they leave. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { builtins } from "../../plugins/mod.ts";
import { exportRun } from "../../src/distill/export/export_run.ts";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import { openModel } from "../../src/formats/open_model.ts";
import { readPeftAdapter } from "../../src/formats/peft/peft.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import { openFile } from "../../src/formats/files.ts";
import { Registry } from "../../src/registry/registry.ts";
import { tinyConfig } from "../models/tiny_configs.ts";
import { TINY_VOCABULARY, tinyRecipe, withTiny, writeTinyModel } from "./tiny_model.ts";
import { runHere } from "./tiny_run.ts";

Deno.test({
  name: "a Gemma 2 teaches a GPT-2: the held-out loss falls, and the merged folder is one of GPT-2",
  sanitizeResources: false,
  sanitizeOps: false,
  fn: () =>
    withTiny(async (files) => {
      const student = `${files.folder}/student`;
      const config = tinyConfig("GPT2LMHeadModel", TINY_VOCABULARY);
      await writeTinyModel(student, { config, seed: 5 });
      const folder = `${files.folder}/run`;
      const recipe = tinyRecipe(files, {
        student: { model: student },
        // Inner values are called alike whatever the families call their layers.
        objective: [
          { loss: "cross-entropy", weight: 0.5 },
          { loss: "forward-kl", weight: 0.5 },
          { loss: "hidden-state-mse", weight: 0.1 },
        ],
        train: { steps: 12, checkpointEvery: 6 },
        output: { merged: true },
      });
      const events: RunEventBody[] = [];
      const { heldOut } = await runHere(recipe, folder, {}, events);
      assert(heldOut.after! < heldOut.before!, `from ${heldOut.before} to ${heldOut.after}`);
      const steps = events.filter((event) => event.type === "metrics");
      assert(
        steps.every(({ losses }) => Number.isFinite(losses["hidden-state-mse"])),
        JSON.stringify(steps[0]),
      );

      const resumed = `${files.folder}/resumed`;
      const control = (step: number) => step >= 6 ? "stop" as const : "run" as const;
      assertEquals((await runHere(recipe, resumed, { control })).status, "paused");
      await runHere(recipe, resumed, { resume: true });
      const weights = (run: string) => Deno.readFile(`${run}/adapter/adapter_model.safetensors`);
      assertEquals(await weights(resumed), await weights(folder));

      const registry = new Registry().addAll(builtins);
      await exportRun(folder, recipe, registry, `${files.folder}/mlx`, "mlx");
      const mlx = await SafetensorsFile.open(await openFile(`${files.folder}/mlx/adapters.safetensors`));
      assertEquals(mlx.tensors.get("model.h.1.mlp.c_fc.lora_a")!.shape, [32, 4]);
      assertEquals([...mlx.tensors.keys()].every((name) => name.startsWith("model.h.")), true);
      mlx.close();

      const adapter = JSON.parse(await Deno.readTextFile(`${folder}/adapter/adapter_config.json`));
      assertEquals([adapter.fan_in_fan_out, adapter.target_modules], [true, ["c_attn", "c_fc", "c_proj"]]);
      const file = await SafetensorsFile.open(await openFile(`${folder}/merged/model.safetensors`));
      assertEquals(file.tensors.get("transformer.h.0.mlp.c_fc.weight")!.shape, [32, 128]);
      file.close();
      const written = JSON.parse(await Deno.readTextFile(`${folder}/merged/config.json`));
      assertEquals(Object.keys(written).filter((key) => key.startsWith("rope")), []);
      const [merged, base] = await Promise.all([openModel(`${folder}/merged`), openModel(student)]);
      assertEquals([...merged.tensors.keys()].sort(), [...base.tensors.keys()].sort());
      // A square layer would not show by its shape which way round it lies.
      const name = "transformer.h.1.attn.c_proj";
      const { settings, tensors } = await readPeftAdapter(`${folder}/adapter`);
      const [a, b] = ["A", "B"].map((side) =>
        tensors.get(`${name}.lora_${side}.weight`)!.data as Float32Array
      );
      const [w, mergedW] = await Promise.all([base, merged].map((m) => m.read(`${name}.weight`)));
      const rank = settings.rank;
      w!.data.forEach((value, i) => {
        const [out, inner] = [Math.floor(i / 32), i % 32];
        let sum = 0;
        for (let r = 0; r < rank; r++) sum += b![out * rank + r]! * a![r * 32 + inner]!;
        const expected = value + settings.alpha / rank * sum;
        assert(
          Math.abs(mergedW!.data[i]! - expected) < 1e-5,
          `value ${i}: ${mergedW!.data[i]}, not ${expected}`,
        );
      });
      for (const model of [merged, base]) model.close();
    }, { config: tinyConfig("Gemma2ForCausalLM", TINY_VOCABULARY) }),
});
