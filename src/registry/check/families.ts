/**
 * What families must do: read the configs they name, ask for the tensors that the files have, and compute what another program computes.
 *
 * @module
 */
import type { Gpu } from "../../gpu/device.ts";
import type { KernelFamily } from "../../gpu/description.ts";
import { canonicalJson } from "../../base/json.ts";
import type { Architecture } from "../../models/architecture.ts";
import { readArchitecture } from "../../models/families.ts";
import { tensorProblems } from "../../models/weights.ts";
import type { Family } from "../family_contract.ts";
import { recordOf } from "../family_record.ts";
import { CheckFailure, type Checklist, CheckSkipped } from "./checklist.ts";
import { FamilyProgram } from "./family_program.ts";
import type { FamilyReference } from "./family_reference.ts";
import { openDevice } from "./traced.ts";

/** Largest difference of a logit. */
const LOGITS = 2e-4;
/** Of an inner value, relative to the largest of its tensor or to 1. */
const HIDDEN = 2e-5;

/** Checks a family against reference values; without any there is nothing that its arithmetic could be held to. */
export async function checkFamily(
  family: Family,
  reference: FamilyReference | undefined,
  list: Checklist,
): Promise<void> {
  if (!reference) {
    await list.step("reference values", () => {
      throw new CheckSkipped("none are given: --reference FOLDER names a small model with its logits");
    });
    return;
  }
  let architecture: Architecture | undefined;
  const described = await list.step("config", () => {
    architecture = readConfigs(family, reference);
    const { layers, hiddenSize, vocabularySize } = architecture.config;
    return `${
      [...reference.configs.keys()].join(", ")
    }: ${layers} layers of ${hiddenSize}, ${vocabularySize} tokens`;
  }, "describe() must read the config.json of the folder.");
  if (!described || !architecture) return;
  const fits = await list.step("tensors", () => {
    const stored = new Map(
      [...reference.tensors].map(([name, { shape }]) => [name, { dtype: "F32", shape }]),
    );
    const problems = tensorProblems(architecture!, stored);
    if (problems.length > 0) {
      throw new CheckFailure(problems.join("\n"), { hint: "Names and shapes must be those of the files." });
    }
    return `${architecture!.tensors.size}, ${architecture!.linearLayers.length} linear layers`;
  });
  if (!fits) return;
  await list.step("an unknown field is refused", () => checkRefusal(family, reference));
  for (const kernels of ["tiled", "subgroup8"] as const) {
    await checkValues(architecture, reference, kernels, list);
  }
}

/** The architecture of config.json. @throws {CheckFailure} where another form of it gives another */
function readConfigs(family: Family, { configs, where }: FamilyReference): Architecture {
  const further = [recordOf(family)];
  const read = [...configs].map(([name, config]) => {
    const architecture = readArchitecture(config, `${where}/${name}`, further);
    if (architecture.family === further[0]) return architecture;
    throw new CheckFailure(`${name} is read as a ${architecture.family.name}`, {
      hint: "architectures must name the class that config.json names.",
    });
  });
  const [first, ...others] = read.map(({ config }) => canonicalJson(plain(config)));
  const other = others.findIndex((text) => text !== first);
  if (other >= 0) {
    throw new CheckFailure(`${[...configs.keys()][other + 1]} is not read as config.json is`, {
      hint: "Both are the same model, written by two generations of transformers.",
    });
  }
  return read[0]!;
}

/** Typed arrays as lists. */
function plain(value: unknown): unknown {
  if (ArrayBuffer.isView(value)) return [...value as Float64Array];
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).filter(([, v]) => v !== undefined).map(([key, v]) => [key, plain(v)]),
  );
}

/** A field that may change what is computed must not pass unseen. */
function checkRefusal(family: Family, { configs, where }: FamilyReference): string {
  const config = { ...configs.get("config.json"), attention_of_another_kind: 2 };
  try {
    readArchitecture(config, where, [recordOf(family)]);
  } catch {
    return "yes";
  }
  throw new CheckFailure("a field of unknown meaning is taken for nothing", {
    hint:
      "Read fields one by one: fields.config, spread or handed on whole, says nothing of which are understood.",
  });
}

async function checkValues(
  architecture: Architecture,
  reference: FamilyReference,
  kernels: KernelFamily,
  list: Checklist,
): Promise<void> {
  const { ids, expected } = reference;
  // One sequence alone would not show what it is packed with.
  const sequences = ids.length > 1 ? ids : [ids[0]!, ids[0]!];
  let gpu: Gpu | undefined;
  let program: FamilyProgram | undefined;
  let found: ReadonlyMap<string, Float32Array> | undefined;
  try {
    await list.step(`logits of packed sequences [${kernels}]`, async () => {
      gpu = await openDevice({ describe: { family: kernels } });
      if (kernels === "subgroup8" && gpu.description.subgroupSize !== 8) {
        throw new CheckSkipped("this device's subgroups do not have 8 lanes");
      }
      program = await FamilyProgram.make(gpu, architecture, reference, sequences);
      found = await program.packed();
      const wanted = expected.get("logits")!.data;
      return compared("logits", found.get("logits")!.subarray(0, wanted.length), wanted, LOGITS);
    });
    if (!program || !found) return;
    await list.step(`hidden states [${kernels}]`, () => checkHidden(architecture, expected, found!));
    await list.step(`with a cache as without [${kernels}]`, async () => {
      const cached = await program!.cached();
      return compared("logits", cached, found!.get("logits")!.subarray(0, cached.length), LOGITS);
    });
  } finally {
    program?.destroy();
    gpu?.destroy();
  }
}

/** Inner values of the first sequence, those that the reference has. */
function checkHidden(
  { config: { layers } }: Architecture,
  expected: FamilyReference["expected"],
  found: ReadonlyMap<string, Float32Array>,
): string {
  const names = [["embed", "embeddings"], ["final_norm", "final_norm"]];
  for (let i = 0; i < layers; i++) names.push([`layer_${i}`, `model.layers.${i}.output`]);
  const there = names.filter(([theirs]) => expected.has(theirs!));
  if (there.length === 0) throw new CheckSkipped("the reference has none");
  for (const [theirs, ours] of there) {
    const wanted = expected.get(theirs!)!.data;
    const values = found.get(ours!);
    if (!values) {
      throw new CheckFailure(`its decoder shows no "${ours}"`, {
        hint: "Show inner values with ctx.tap(name, x): losses over hidden states look for them.",
      });
    }
    const largest = wanted.reduce((most, v) => Math.max(most, Math.abs(v)), 1);
    compared(theirs!, values.subarray(0, wanted.length), wanted, HIDDEN * largest);
  }
  return there.map(([theirs]) => theirs).join(", ");
}

/** The largest difference, in words. @throws {CheckFailure} where it is more than `most`, or one is no number */
function compared(what: string, found: Float32Array, wanted: Float32Array, most: number): string {
  if (found.length !== wanted.length) {
    throw new CheckFailure(`${what} are ${found.length} values where the reference has ${wanted.length}`);
  }
  let [worst, at] = [0, 0];
  for (const [i, value] of found.entries()) {
    const difference = Math.abs(value - wanted[i]!);
    if (difference <= worst) continue;
    [worst, at] = [difference, i];
    // Nothing is more than NaN.
    if (Number.isNaN(difference)) break;
  }
  if (worst <= most) return `largest difference ${worst.toExponential(1)}`;
  throw new CheckFailure(`${what}: value ${at} is ${found[at]} where ${wanted[at]} is expected`, {
    hint: `At most ${most.toExponential(0)} apart. Look at where hidden states first differ.`,
  });
}
