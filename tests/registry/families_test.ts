/** Families from outside: held to reference values, registered, handed to whoever opens models, and remembered by runs. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { builtins } from "../../plugins/mod.ts";
import starcoder2 from "../../examples/families/starcoder2.ts";
import { InputError } from "../../src/base/errors.ts";
import { exportGguf } from "../../src/distill/export/export_model.ts";
import { hostLinearAlgebra } from "../../src/linalg/host.ts";
import { readArchitecture } from "../../src/models/families.ts";
import { checkPlugin, type CheckResult } from "../../src/registry/check/check_plugin.ts";
import type { FamilyReference } from "../../src/registry/check/family_reference.ts";
import { decoder, type DescribedConfig, type Family, PluginError } from "../../src/registry/contract.ts";
import { familiesOf } from "../../src/registry/families.ts";
import { recordOf } from "../../src/registry/family_record.ts";
import { Registry } from "../../src/registry/registry.ts";
import { readReference } from "../../src/runs/child/inside/read_reference.ts";
import { inspectPlugins } from "../../src/runs/child/plugin_check.ts";
import { TINY_VOCABULARY, tinyRecipe, withTiny } from "../distill/tiny_model.ts";
import { runHere } from "../distill/tiny_run.ts";

const folder = decodeURIComponent(new URL("../../examples/families/starcoder2", import.meta.url).pathname);
const reference = await readReference(folder);

async function check(
  family: Family,
  against: FamilyReference | undefined,
  others: readonly Family[] = [],
): Promise<CheckResult[]> {
  const results: CheckResult[] = [];
  const subject = { plugin: family, others, options: {}, linalg: hostLinearAlgebra };
  await checkPlugin({ ...subject, ...(against ? { reference: against } : {}) }, {
    begin: () => {},
    result: (r) => void results.push(r),
  });
  return results;
}

const failures = (results: readonly CheckResult[]) =>
  results.filter(({ outcome }) => outcome === "fail").map(({ check, detail }) => `${check}: ${detail}`);

/** The example with something changed in what it reads. */
function changed(change: (config: DescribedConfig) => DescribedConfig, more: Partial<Family> = {}): Family {
  return {
    ...starcoder2,
    describe: (fields, architecture) => change(starcoder2.describe(fields, architecture)),
    ...more,
  };
}

/** Every layer of a description changed. */
function layers(change: (layer: DescribedConfig["description"]["layers"][number]) => object): Family {
  return changed((config) => ({
    ...config,
    description: {
      ...config.description,
      layers: config.description.layers.map((layer) => ({ ...layer, ...change(layer) })),
    },
  }));
}

Deno.test({
  name: "the example from outside agrees with its reference, checked as users check theirs",
  async fn() {
    const file = decodeURIComponent(
      new URL("../../examples/families/starcoder2.ts", import.meta.url).pathname,
    );
    const how = { ids: [], files: [file], check: true, options: {}, timeoutSeconds: 120 };
    const [found] = await inspectPlugins({ ...how, reference: folder });
    assertEquals(failures(found!.results), []);
    const passed = found!.results.filter(({ outcome }) => outcome === "pass").map(({ check }) => check);
    for (const kernels of ["tiled", "subgroup8"]) {
      assert(passed.includes(`logits of packed sequences [${kernels}]`));
      assert(passed.includes(`with a cache as without [${kernels}]`));
    }
  },
});

Deno.test("without reference values only the contract is looked at, and that is said", async () => {
  const results = await check(starcoder2, undefined);
  assertEquals(results.map(({ check, outcome }) => [check, outcome]), [
    ["contract", "pass"],
    ["options", "pass"],
    ["reference values", "skip"],
  ]);
});

/** Mistakes on the device, by the first check that sees them. */
const MISTAKES: readonly [what: string, family: Family, check: RegExp][] = [
  [
    "a window one key too short",
    layers(({ attention }) => ({ attention: { ...attention, window: 8 } })),
    /^logits.*\[tiled\]/,
  ],
  [
    "the other form of gelu",
    layers(({ mlp }) => ({ mlp: { ...mlp, activation: "gelu" } })),
    /^logits.*\[tiled\]/,
  ],
];

for (const [what, family, where] of MISTAKES) {
  Deno.test(`the check of families sees ${what}`, async () => {
    const found = failures(await check(family, reference));
    assert(where.test(found[0] ?? ""), found.join("\n"));
  });
}

Deno.test("the check of families sees what needs no device", async () => {
  const first = async (family: Family, against = reference, others: readonly Family[] = []) =>
    failures(await check(family, against, others))[0] ?? "nothing";
  const named = layers(({ mlp }) => ({ mlp: { ...mlp, up: { name: "mlp.fc", bias: true } } }));
  assert(/^tensors: .*mlp\.fc\.weight is missing/s.test(await first(named)));
  const biasless = layers(({ attention }) => ({
    attention: { ...attention, output: { name: "self_attn.o_proj" } },
  }));
  assert(/o_proj\.bias is not part of this model/.test(await first(biasless)));
  // Another generation of the file that means something else.
  const legacy = { ...reference.configs.get("config.json")!, norm_epsilon: 1e-6 };
  const configs = new Map([...reference.configs, ["config.legacy.json", legacy]]);
  assert(
    /^config: config\.legacy\.json is not read/.test(await first(starcoder2, { ...reference, configs })),
  );
  const blind = changed((config) => config, { ignored: ["attention_of_another_kind"] });
  assert(/^an unknown field is refused: /.test(await first(blind)));
  const taken = { ...starcoder2, architectures: { LlamaForCausalLM: "llama" } };
  assert(/^contract: LlamaForCausalLM is read by Limbeck itself/.test(await first(taken)));
  const twin = { ...starcoder2, id: "example/twin" };
  assert(
    /^contract: it reads Starcoder2ForCausalLM, as those of/.test(await first(twin, reference, [starcoder2])),
  );
});

Deno.test("a malformed family is not registered", () => {
  const refused = (change: Partial<Family>, why: string) =>
    assertThrows(() => new Registry().add({ ...starcoder2, ...change } as Family), PluginError, why);
  refused({ architectures: {} }, "architectures is {}");
  refused({ names: { ...decoder.USUAL_NAMES, head: undefined! } }, "names.head is missing");
  refused({ describe: undefined! }, "describe() is missing");
});

Deno.test("its class is known where the registry's families are handed in, and nowhere else", () => {
  const config = reference.configs.get("config.json")!;
  const error = assertThrows(
    () => readArchitecture(config, "model"),
    InputError,
    "Starcoder2ForCausalLM",
  ) as InputError;
  assert(error.hint!.includes("--plugin FILE"));
  const families = familiesOf(new Registry().addAll(builtins).add(starcoder2));
  const architecture = readArchitecture(config, "model", families);
  assertEquals([architecture.family.name, architecture.linearLayers.length], ["example/starcoder2", 12]);
  // What is made of it later is read with the same families.
  assertEquals(architecture.with({ layers: [1] }).further, families);
});

Deno.test("a reference that does not do is named by its file", async () => {
  const copy = await Deno.makeTempDir({ prefix: "limbeck-" });
  try {
    for (const name of ["config.json", "model.safetensors", "expected.safetensors"]) {
      await Deno.copyFile(`${folder}/${name}`, `${copy}/${name}`);
    }
    await assertRejects(() => readReference(copy), InputError, "ids.json: cannot be read");
    await Deno.writeTextFile(`${copy}/ids.json`, '{"ids": [[1, 2], [3]]}');
    await assertRejects(() => readReference(copy), InputError, "all of one length");
    await Deno.writeTextFile(`${copy}/ids.json`, '{"ids": [[1, 2, 3]]}');
    await assertRejects(() => readReference(copy), InputError, "logits have shape [2, 23, 97]");
  } finally {
    await Deno.remove(copy, { recursive: true });
  }
});

Deno.test({
  name: "a run trains a model of a family from outside, and goes on with that family alone",
  sanitizeResources: false,
  sanitizeOps: false,
  fn: () =>
    withTiny(async (files) => {
      const run = `${files.folder}/run`;
      const recipe = tinyRecipe(files, {
        student: { model: "teacher", layers: [1] },
        train: { steps: 4, checkpointEvery: 2 },
        output: { merged: true },
      });
      await assertRejects(() => runHere(recipe, run), InputError, "Starcoder2ForCausalLM");
      const control = (step: number) => step >= 2 ? "stop" as const : "run" as const;
      const { status } = await runHere(recipe, run, { plugins: [starcoder2], control });
      assertEquals(status, "paused");
      const other = { ...starcoder2, version: "1.0.1" };
      await assertRejects(
        () => runHere(recipe, run, { plugins: [other], resume: true }),
        InputError,
        "family example/starcoder2",
      );
      await runHere(recipe, run, { plugins: [starcoder2], resume: true });
      const written = JSON.parse(await Deno.readTextFile(`${run}/merged/config.json`));
      assertEquals([written.architectures, written.num_hidden_layers], [["Starcoder2ForCausalLM"], 1]);
      const gguf = { storage: "F32", name: "a", families: [recordOf(starcoder2)] } as const;
      await assertRejects(
        () => exportGguf(`${run}/merged`, `${run}/a.gguf`, gguf),
        InputError,
        "models of the family example/starcoder2 cannot be written",
      );
      const adapter = JSON.parse(await Deno.readTextFile(`${run}/adapter/adapter_config.json`));
      assert(adapter.target_modules.includes("c_fc"), adapter.target_modules.join());
    }, {
      config: { ...reference.configs.get("config.json"), vocab_size: TINY_VOCABULARY },
      families: [recordOf(starcoder2)],
    }),
});
