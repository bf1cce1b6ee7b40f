/** Merges against those of an independent implementation in float64, and against mergekit's own results. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
// @ts-types="../../types/std_yaml.d.ts"
import { parse } from "@std/yaml";
import { openFile } from "../../src/formats/files.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import { farthest, mergeCalled, mergeModels, type TestModel, type TestTensor } from "../merges/host.ts";
import { hasShared, sharedPath, sharedTest } from "../shared.ts";

/** Every tensor of a file; bf16 as numbers. */
async function readAll(path: string): Promise<Map<string, TestTensor>> {
  const file = await SafetensorsFile.open(await openFile(sharedPath(`goldens/${path}`)));
  try {
    const all = new Map<string, TestTensor>();
    for (const name of file.tensors.keys()) {
      const { dtype, shape, data } = await file.readArray(name);
      const values = data instanceof BigInt64Array || data instanceof BigUint64Array ? [] : data;
      all.set(name, { shape, values: dtype === "BF16" ? bfloat16(values) : values });
    }
    return all;
  } finally {
    file.close();
  }
}

function bfloat16(bits: ArrayLike<number>): Float32Array {
  return new Float32Array(Uint32Array.from(bits, (b) => b * 2 ** 16).buffer);
}

/** The tensors whose names begin with `prefix.`, without it. */
function startingWith(prefix: string, all: TestModel): TestModel {
  const own = [...all].filter(([name]) => name.startsWith(`${prefix}.`));
  return new Map(own.map(([name, tensor]) => [name.slice(prefix.length + 1), tensor]));
}

/** A case of merges.json. */
interface Case {
  readonly base?: string;
  readonly inputs?: readonly string[];
  readonly weights?: readonly number[];
  readonly normalize?: boolean;
  readonly lambda?: number;
  readonly t?: number;
  readonly dot_threshold?: number;
  readonly density?: number;
  readonly gamma?: number;
  readonly select_topk?: number;
  readonly masks?: readonly string[];
  readonly rescale?: string;
  readonly a?: number;
  readonly instruct?: string;
  readonly new_base?: string;
}

/** Method, its options and those that parents share, for a case of this name. */
function methodOf(name: string, c: Case): [id: string, options: object, parent: object] {
  const added = { ...(c.lambda === undefined ? {} : { lambda: c.lambda }), normalize: c.normalize };
  if (name.startsWith("linear")) return ["linear", { normalize: c.normalize }, {}];
  if (name.startsWith("task_arithmetic")) return ["task-arithmetic", added, {}];
  if (name.startsWith("slerp")) return ["slerp", { t: c.t, straight: c.dot_threshold }, {}];
  if (name.startsWith("ties")) return ["ties", { ...added, trim: "tensor" }, { density: c.density }];
  if (name.startsWith("model_stock")) return ["model-stock", {}, {}];
  if (name.startsWith("breadcrumbs")) return ["breadcrumbs", added, { density: c.density, gamma: c.gamma }];
  if (name.startsWith("sce")) return ["sce", { selectTopk: c.select_topk }, {}];
  if (name.startsWith("nearswap")) return ["nearswap", { t: c.t }, {}];
  if (name.startsWith("tsv_m")) return ["tsv-m", { lambda: c.a }, {}];
  if (name.startsWith("dare")) {
    const rescaling = c.rescale!.startsWith("1/") ? "density" : "l1";
    return ["dare-linear", { rescale: c.rescale !== "none", rescaling }, { density: c.density }];
  }
  throw new Error(`no method for the case ${name}`);
}

sharedTest("merges equal the float64 ones of goldens/merges", async () => {
  const { methods } = JSON.parse(await Deno.readTextFile(sharedPath("goldens/merges/merges.json"))) as {
    methods: Record<string, Case>;
  };
  const inputs = await readAll("merges/inputs.safetensors");
  const expected = await readAll("merges/expected.safetensors");
  const modelOf = (name: string) => startingWith(name, inputs);
  let compared = 0;
  for (const [name, c] of Object.entries(methods)) {
    const residual = c.instruct !== undefined;
    const [id, options, shared] = residual ? ["task-arithmetic", {}, {}] as const : methodOf(name, c);
    const models = residual ? [c.instruct!, c.new_base!] : c.inputs!;
    const merged = await mergeModels(id, {
      ...(c.base === undefined ? {} : { base: modelOf(c.base) }),
      parents: models.map((model, i) => ({
        model: modelOf(model),
        options: { ...shared, ...(c.weights ? { weight: c.weights[i] } : {}) },
      })),
      options,
      mask: (parent, tensor) => inputs.get(`${c.masks![parent]}.${tensor}`)?.values,
    });
    const wanted = startingWith(name, expected);
    assert(wanted.size > 0, `nothing is expected of ${name}`);
    for (const [tensor, { values }] of wanted) {
      compare(`${name} ${tensor}`, merged.get(tensor)!, values, () => (id === "tsv-m" ? 1e-5 : 2e-6));
      compared++;
    }
  }
  assertEquals(compared, expected.size);
});

/** A YAML file of mergekit, as far as it is one method on whole models. */
interface Yaml {
  readonly models?: readonly { readonly model: string; readonly parameters?: Record<string, unknown> }[];
  readonly base_model?: string;
  readonly merge_method: string;
  readonly parameters?: Record<string, unknown>;
  readonly dtype?: string;
  readonly out_dtype?: string;
  readonly tokenizer_source?: string;
}

/** Whether it needs nothing but the method: no slices, gradients, filters, tokenizers or bf16 work. */
function isMethodAlone({ models, dtype, parameters, tokenizer_source }: Yaml): boolean {
  const sets = [parameters ?? {}, ...(models ?? []).map((m) => m.parameters ?? {})];
  return models !== undefined && dtype === "float32" && tokenizer_source === undefined &&
    sets.every((set) => Object.values(set).every((value) => !Array.isArray(value)));
}

/** Our names for mergekit's. */
function renamed(id: string, parameters: Record<string, unknown> = {}): Record<string, unknown> {
  const { names = {} } = mergeCalled(id).like?.mergekit ?? {};
  const camelCase = (name: string) => name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
  return Object.fromEntries(
    Object.entries(parameters).filter(([name]) => name !== "int8_mask")
      .map(([name, value]) => [names[name] ?? camelCase(name), value]),
  );
}

function mergekitCases(): [string, Yaml][] {
  if (!hasShared) return [];
  const folder = sharedPath("goldens/mergekit/yaml/");
  return [...Deno.readDirSync(folder)].map(({ name }): [string, Yaml] => [
    name.replace(/\.yml$/, ""),
    parse(Deno.readTextFileSync(folder + name)) as Yaml,
  ]).filter(([, yaml]) => isMethodAlone(yaml)).sort();
}

sharedTest("mergekit's goldens have cases of every method that is one call", () => {
  const methods = new Set(mergekitCases().map(([, { merge_method }]) => merge_method));
  for (
    const name of ["linear", "slerp", "nuslerp", "multislerp", "karcher", "ties", "dare_ties", "della", "sce"]
  ) {
    assert(methods.has(name), `${name} is not among ${[...methods].join(", ")}`);
  }
});

/** A case, merged with mergekit's choices or with our own, beside what mergekit made of it. */
async function mergeCase(name: string, yaml: Yaml, like?: "mergekit") {
  const id = yaml.merge_method.replaceAll("_", "-");
  const { base: baseUse } = mergeCalled(id);
  const expected = await readAll(`mergekit/expected/${name}.safetensors`);
  const read = async (path: string) => {
    const all = await readAll(`mergekit/${path}/model.safetensors`);
    return new Map([...all].filter(([tensor]) => expected.has(tensor)));
  };
  const isChange = baseUse === "required" || baseUse === "optional";
  const isBase = (model: string) => model === yaml.base_model;
  // The base comes first where it is one of the models, whatever the order of the file.
  const models = isChange
    ? yaml.models!.filter(({ model }) => !isBase(model))
    : yaml.models!.toSorted((a, b) => Number(isBase(b.model)) - Number(isBase(a.model)));
  const masks = await readAll(`mergekit/masks/${name}.safetensors`).catch(() => undefined);
  const merged = await mergeModels(id, {
    ...(isChange && yaml.base_model !== undefined ? { base: await read(yaml.base_model) } : {}),
    parents: await Promise.all(models.map(async ({ model, parameters }) => ({
      model: await read(model),
      options: renamed(id, parameters),
    }))),
    options: renamed(id, yaml.parameters),
    ...(like ? { like } : {}),
    mask: (parent, tensor) => masks?.get(`${models[parent]!.model.split("/").at(-1)}.${tensor}`)?.values,
  });
  assert(expected.size > 0, `nothing is expected of ${name}`);
  return { merged, expected };
}

for (const [name, yaml] of mergekitCases()) {
  sharedTest(`mergekit's ${name}`, async () => {
    const { merged, expected } = await mergeCase(name, yaml, "mergekit");
    const undecided = await readAll(`mergekit/undecided/${name}.safetensors`).catch(() => undefined);
    const tolerance = yaml.out_dtype === "bfloat16"
      ? (y: number) => 0.03 * Math.max(Math.abs(y), 1 / 64)
      : () => 2e-6;
    for (const [tensor, { values }] of expected) {
      compare(`${name} ${tensor}`, merged.get(tensor)!, values, tolerance, undecided?.get(tensor)?.values);
    }
  });
}

sharedTest("where mergekit differs from a paper, ours is far from its result", async () => {
  for (const method of ["dare_linear", "dare_ties", "della", "della_linear", "ties"]) {
    const cases = mergekitCases().filter(([, yaml]) =>
      yaml.merge_method === method && yaml.dtype === "float32" && yaml.parameters?.rescale !== false
    );
    assert(cases.length > 0, method);
    for (const [name, yaml] of cases) {
      const { merged, expected } = await mergeCase(name, yaml);
      const worst = Math.max(
        ...[...expected].map(([tensor, { values }]) => farthest(merged.get(tensor)!, values)),
      );
      assert(worst > 1e-3, `${name} differs by ${worst}`);
    }
  }
});

function compare(
  what: string,
  got: Float32Array,
  want: ArrayLike<number>,
  tolerance: (wanted: number) => number,
  undecided?: ArrayLike<number>,
): void {
  assertEquals(got.length, want.length, what);
  for (let i = 0; i < want.length; i++) {
    if (undecided?.[i]) continue;
    const difference = Math.abs(got[i]! - want[i]!);
    assert(
      difference <= tolerance(want[i]!),
      `${what}: entry ${i} is ${got[i]} where ${want[i]} is expected`,
    );
  }
}
