/** What `limbeck doctor --models` says of the models in a folder. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { main } from "../../src/cli/main.ts";
import type { ExaminedModel } from "../../src/distill/inputs/examine_model.ts";
import { writeTinyGguf } from "../distill/tiny_gguf.ts";
import { TINY_VOCABULARY, writeTinyModel } from "../distill/tiny_model.ts";
import { FIRST } from "../hub/hub_cases.ts";
import { withFolder } from "../runs/fake_run.ts";
import { json, replaced, sharded, weights, writeBrokenModel } from "./broken_models.ts";
import { fakeTerminal } from "./fake_terminal.ts";

async function doctor(...flags: string[]): Promise<{ code: number; out: string; err: string }> {
  const terminal = fakeTerminal();
  const code = await main(["doctor", ...flags], terminal);
  return { code, out: terminal.out, err: terminal.err };
}

/** What is said as JSON, by name. */
async function examined(folder: string) {
  const { code, out } = await doctor("--models", folder, "--json");
  const { ok, models } = JSON.parse(out) as { ok: boolean; models: (ExaminedModel & { name: string })[] };
  return { code, ok, models: new Map(models.map((model) => [model.name, model])) };
}

const LAYERS = { layers: 1 };

Deno.test("doctor says of each model what it is, whether it loads, and what is missing", () =>
  withFolder(async (all) => {
    const folder = `${all}/models`;
    await writeTinyModel(`${folder}/good`, { ...LAYERS, dtype: "bf16" });
    await writeTinyGguf(`${folder}/good`, `${folder}/good.gguf`, "Q8_0");
    await writeTinyModel(`${folder}/org/deep`, LAYERS);
    const breakages = {
      family: json(
        "config.json",
        (c) => Object.assign(c, { architectures: ["XyzForCausalLM"], model_type: "xyz" }),
      ),
      shape: weights(({ header }) => header["model.norm.weight"]!.shape = [4, 8]),
      tokenizer: (path: string) => Deno.remove(`${path}/tokenizer.json`),
      tokens: json("tokenizer.json", (t) => t.model.type = "Morse"),
      config: replaced("config.json", "{"),
      shard: sharded((_, path) => Deno.remove(`${path}/part-1.safetensors`)),
      pickled: async (path: string) => {
        await Deno.rename(`${path}/model.safetensors`, `${path}/pytorch_model.bin`);
      },
    };
    for (const [name, breakage] of Object.entries(breakages)) {
      await writeBrokenModel(`${folder}/broken/${name}`, breakage);
    }
    await Deno.mkdir(`${folder}/empty`);
    await Deno.mkdir(`${folder}/.hidden`);
    await Deno.symlink("nowhere", `${folder}/dangling`);
    await Deno.writeTextFile(`${folder}/notes.txt`, "none of them");
    await Deno.writeTextFile(`${folder}/broken.gguf`, "GGUF?");

    const { code, ok, models } = await examined(folder);
    assertEquals([code, ok], [3, false]);
    assertEquals(
      [...models.keys()].sort(),
      [
        ...Object.keys(breakages).map((name) => `broken/${name}`),
        "broken.gguf",
        "good",
        "good.gguf",
        "org/deep",
      ].sort(),
    );
    const good = models.get("good")!;
    assertEquals([good.loads, good.family, good.layers, good.kind], [true, "llama", 1, "folder"]);
    assertEquals(good.vocabulary, { rows: TINY_VOCABULARY, tokens: TINY_VOCABULARY });
    assertEquals(good.storage, { BF16: good.parameters! });
    const gguf = models.get("good.gguf")!;
    assertEquals([gguf.loads, gguf.family, gguf.parameters], [true, "llama", good.parameters]);
    assertEquals(Object.keys(gguf.storage!).sort(), ["F16", "F32", "Q8_0"]);
    assert(models.get("org/deep")!.loads);
    const expected: Record<string, readonly [part: string, message: string, family: string | undefined]> = {
      family: ["config", "XyzForCausalLM", "xyz"],
      shape: ["weights", "model.norm.weight has shape [4, 8], expected [32]", "llama"],
      tokenizer: ["tokenizer", "there is no tokenizer.json", "llama"],
      tokens: ["tokenizer", "Morse", "llama"],
      config: ["files", "config.json: is not valid JSON", undefined],
      shard: ["files", "these shards are missing: part-1.safetensors", "llama"],
      pickled: ["files", "the weights are pickled", "llama"],
    };
    for (const [name, [part, message, family]] of Object.entries(expected)) {
      const { loads, problems, ...model } = models.get(`broken/${name}`)!;
      assertEquals([loads, problems.length, problems[0]!.part, model.family], [false, 1, part, family], name);
      assertStringIncludes(problems[0]!.message, message);
      assert(!problems[0]!.message.includes(folder), problems[0]!.message);
    }

    const shown = await doctor("--models", folder);
    assertEquals(shown.code, 3);
    assertStringIncludes(shown.out, "3 of 11 load.");
    assertStringIncludes(shown.out, "broken/pickled: files: the weights are pickled");
    assertStringIncludes(shown.out, "  -> Convert them to safetensors");
  }));

Deno.test("doctor knows the models of a cache by their names on the hub", () =>
  withFolder(async (folder) => {
    const repository = `${folder}/hub/models--ada--small`;
    await writeTinyModel(`${folder}/model`, LAYERS);
    await Deno.mkdir(`${repository}/blobs`, { recursive: true });
    await Deno.mkdir(`${repository}/snapshots/${FIRST}`, { recursive: true });
    for await (const { name } of Deno.readDir(`${folder}/model`)) {
      await Deno.rename(`${folder}/model/${name}`, `${repository}/blobs/${name}-hash`);
      await Deno.symlink(`../../blobs/${name}-hash`, `${repository}/snapshots/${FIRST}/${name}`);
    }
    const { code, models } = await examined(`${folder}/hub`);
    assertEquals([code, [...models.keys()]], [0, ["hf:ada/small@11111111"]]);
    const before = Deno.env.get("HF_HUB_CACHE");
    Deno.env.set("HF_HUB_CACHE", `${folder}/hub`);
    try {
      assertEquals((await examined("hf:")).models.get("hf:ada/small@11111111")!.loads, true);
    } finally {
      if (before === undefined) Deno.env.delete("HF_HUB_CACHE");
      else Deno.env.set("HF_HUB_CACHE", before);
    }
  }));

Deno.test("doctor has nothing to say of an empty folder, and refuses one that is not there", () =>
  withFolder(async (folder) => {
    const empty = await doctor("--models", `${folder}/runs`);
    assertEquals(empty.code, 0);
    assertStringIncludes(empty.out, "There is no model in");
    assertEquals((await doctor("--models", `${folder}/none`)).code, 3);
    assertEquals((await doctor("--models", `${folder}/data/train.jsonl`)).code, 3);
  }));
