// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertRejects } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { toFloat32 } from "../../src/formats/dtype.ts";
import { openModel } from "../../src/formats/open_model.ts";
import { writeSafetensors } from "../../src/formats/safetensors/write.ts";
import { sharedPath, sharedTest } from "../shared.ts";

/** A folder made of the given files: text, or tensors by name with one value each; removed afterwards. */
async function withFolder(
  files: Record<string, string | string[]>,
  body: (folder: string) => Promise<void>,
): Promise<void> {
  const root = await Deno.makeTempDir();
  try {
    for (const [name, content] of Object.entries(files)) {
      const path = `${root}/${name}`;
      await Deno.mkdir(path.slice(0, path.lastIndexOf("/")), { recursive: true });
      if (typeof content === "string") await Deno.writeTextFile(path, content);
      else {
        const tensors = content.map((tensor) => ({ name: tensor, dtype: "F32" as const, shape: [1] }));
        await writeSafetensors(path, tensors, () => Float32Array.of(content.length));
      }
    }
    await body(root);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}

const index = (map: Record<string, string>) => JSON.stringify({ weight_map: map });
const shardA = "model-00001-of-00002.safetensors";
const shardB = "model-00002-of-00002.safetensors";
const indexName = "model.safetensors.index.json";

const refused: [string, Record<string, string | string[]>, string][] = [
  ["a folder without config.json", { "model.safetensors": ["a"] }, "no config.json"],
  ["an adapter folder", { "adapter_config.json": "{}" }, "no config.json"],
  [
    "a config that is no JSON",
    { "config.json": "{", "model.safetensors": ["a"] },
    "config.json: is not valid JSON",
  ],
  ["a config that is a list", { "config.json": "[]", "model.safetensors": ["a"] }, "JSON object"],
  ["a folder without weights", { "config.json": "{}" }, "neither model.safetensors nor"],
  ["a folder with pickled weights only", { "config.json": "{}", "pytorch_model.bin": "x" }, "pickled"],
  [
    "a missing shard",
    { "config.json": "{}", [indexName]: index({ a: shardA, b: shardB }), [shardA]: ["a"] },
    shardB,
  ],
  ["a tensor that its shard lacks", {
    "config.json": "{}",
    [indexName]: index({ a: shardA, b: shardA }),
    [shardA]: ["a"],
  }, "maps tensor b"],
  ["a tensor that the index lacks", {
    "config.json": "{}",
    [indexName]: index({ a: shardA }),
    [shardA]: ["a", "b"],
  }, "holds tensor b"],
  ["a tensor in two shards", {
    "config.json": "{}",
    [indexName]: index({ a: shardA, b: shardB }),
    [shardA]: ["a", "b"],
    [shardB]: ["b"],
  }, "holds tensor b"],
  ["an index with a tensor twice", {
    "config.json": "{}",
    [indexName]: `{"weight_map":{"a":"${shardA}","a":"${shardB}"}}`,
    [shardA]: ["a"],
  }, "occurs twice"],
  ["an index without weight_map", { "config.json": "{}", [indexName]: "{}" }, "weight_map"],
  ["an index with an empty weight_map", { "config.json": "{}", [indexName]: index({}) }, "empty"],
  ...[
    "../x.safetensors",
    "x..safetensors",
    "/x.safetensors",
    "a/x.safetensors",
    "a\\x.safetensors",
    "c:x.safetensors",
    "..",
    ".safetensors",
    "x.bin",
    "",
  ]
    .map((name): [string, Record<string, string>, string] => [
      `an index that points to ${JSON.stringify(name)}`,
      { "config.json": "{}", [indexName]: index({ a: name }) },
      "tensor a is mapped to",
    ]),
];

for (const [what, files, says] of refused) {
  Deno.test(`openModel() refuses ${what}`, () =>
    withFolder(files, async (folder) => {
      await assertRejects(() => openModel(folder), InputError, says);
    }));
}

Deno.test("openModel() refuses a path that is not there, an empty folder and a lone safetensors file", () =>
  withFolder({ "x.safetensors": ["a"] }, async (folder) => {
    await Deno.mkdir(`${folder}/empty`);
    await assertRejects(() => openModel(`${folder}/none`), InputError, "no such file or folder");
    await assertRejects(() => openModel(`${folder}/empty`), InputError, "the folder is empty");
    await assertRejects(() => openModel(`${folder}/x.safetensors`), InputError, "neither a model folder");
  }));

Deno.test("openModel() reads shards, whichever holds a tensor, and fingerprints all of them", () =>
  withFolder({
    "config.json": "{}",
    [indexName]: index({ a: shardB, b: shardA, c: shardB }),
    [shardA]: ["b"],
    [shardB]: ["a", "c"],
  }, async (folder) => {
    const model = await openModel(folder);
    assertEquals([...model.tensors.keys()].sort(), ["a", "b", "c"]);
    assertEquals(model.tensors.get("a"), { dtype: "F32", shape: [1], exactDtype: "f32" });
    assertEquals([(await model.read("b")).data[0], (await model.read("c")).data[0]], [1, 2]);
    await assertRejects(() => model.read("d"), InputError, "no tensor d");
    const before = await model.fingerprint();
    model.close();

    await writeSafetensors(
      `${folder}/${shardA}`,
      [{ name: "b", dtype: "F32", shape: [1] }],
      () => Float32Array.of(3),
    );
    const changed = await openModel(folder);
    assertEquals([before.length, await changed.fingerprint() === before], [64, false]);
    changed.close();
  }));

Deno.test("openModel() refuses a link out of the folder but follows those of a Hugging Face cache", () =>
  withFolder({
    "outside.safetensors": ["a"],
    "model/config.json": "{}",
    "cache/models--o--n/blobs/1234": "{}",
    "cache/models--o--n/blobs/5678": ["a"],
    "cache/models--o--n/snapshots/rev/README.md": "",
    "cache/models--o--other/blobs/5678": ["a"],
  }, async (folder) => {
    await Deno.symlink("../outside.safetensors", `${folder}/model/model.safetensors`);
    await assertRejects(() => openModel(`${folder}/model`), InputError, "link out of the model folder");

    const snapshot = `${folder}/cache/models--o--n/snapshots/rev`;
    await Deno.symlink("../../blobs/1234", `${snapshot}/config.json`);
    await Deno.symlink("../../blobs/5678", `${snapshot}/model.safetensors`);
    const model = await openModel(snapshot);
    assertEquals([...model.tensors.keys()], ["a"]);
    model.close();

    await Deno.remove(`${snapshot}/model.safetensors`);
    await Deno.symlink("../../../models--o--other/blobs/5678", `${snapshot}/model.safetensors`);
    await assertRejects(() => openModel(snapshot), InputError, "link out of the model folder");
    await Deno.remove(`${snapshot}/model.safetensors`);
    await Deno.symlink("../../blobs/none", `${snapshot}/model.safetensors`);
    await assertRejects(() => openModel(snapshot), InputError, "link to a file that is not there");
  }));

Deno.test("tokenizer() takes the template file before the config's, and says what is missing without tokenizer.json", () =>
  withFolder({
    "config.json": "{}",
    "model.safetensors": ["a"],
    "tokenizer.json": "{}",
    "tokenizer_config.json": JSON.stringify({
      chat_template: [{ name: "tools", template: "T" }, { name: "default", template: "D" }],
    }),
  }, async (folder) => {
    const model = await openModel(folder);
    assertEquals((await model.tokenizer()).chatTemplate, "D");
    await Deno.writeTextFile(`${folder}/chat_template.jinja`, "J");
    await Deno.writeTextFile(`${folder}/generation_config.json`, '{"eos_token_id":[1]}');
    model.close();
    const again = await openModel(folder);
    const { chatTemplate, generationConfig } = await again.tokenizer();
    assertEquals([chatTemplate, generationConfig], ["J", { eos_token_id: [1] }]);
    again.close();
    await Deno.remove(`${folder}/tokenizer.json`);
    const without = await openModel(folder);
    const error = await assertRejects(() => without.tokenizer(), InputError, "no tokenizer.json");
    assertEquals(error.hint?.includes("tokenizer.model"), true);
    without.close();
  }));

sharedTest("openModel() reads the same tensors from shards as from one file", async () => {
  const whole = await openModel(sharedPath("goldens/families/llama3_rope"));
  const sharded = await openModel(sharedPath("goldens/families/llama3_rope/sharded"));
  assertEquals([...sharded.tensors.keys()].sort(), [...whole.tensors.keys()].sort());
  for (const name of whole.tensors.keys()) assertEquals(await sharded.read(name), await whole.read(name));
  whole.close();
  sharded.close();
});

sharedTest("read() gives f16 and bf16 in their own storage, equal to the f32 model rounded", async () => {
  const whole = await openModel(sharedPath("goldens/families/llama_tied_bias"));
  for (const [dtype, bound] of [["f16", 2 ** -11], ["bf16", 2 ** -8]] as const) {
    const half = await openModel(sharedPath(`goldens/families/llama_tied_bias/${dtype}`));
    for (const [name, info] of half.tensors) {
      assertEquals(info.exactDtype, dtype);
      const { data } = await half.read(name);
      const values = toFloat32(dtype, data);
      const exact = toFloat32("f32", (await whole.read(name)).data);
      let worst = 0;
      for (let i = 0; i < exact.length; i++) {
        const allowed = bound * Math.abs(exact[i]) + 2 ** -25;
        worst = Math.max(worst, Math.abs(values[i] - exact[i]) / allowed);
      }
      assertEquals(worst <= 1, true, `${name} is off by ${worst} of the rounding allowed`);
      const rows = await half.readRows(name, 1, 2);
      const width = data.length / info.shape[0];
      assertEquals(rows.data, data.slice(width, 3 * width));
    }
    half.close();
  }
  whole.close();
});

sharedTest("fingerprint() of one file is its sha256", async () => {
  const path = sharedPath("models/stories260K");
  const model = await openModel(path);
  const digest = await crypto.subtle.digest("SHA-256", await Deno.readFile(`${path}/model.safetensors`));
  assertEquals(await model.fingerprint(), new Uint8Array(digest).toHex());
  model.close();
});
