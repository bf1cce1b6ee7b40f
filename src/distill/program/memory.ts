/**
 * What a run takes on the GPU, and what to say when that is too much.
 *
 * @module
 */
import { bytes } from "../../base/units.ts";
import { DeviceError } from "../../base/errors.ts";
import type { Plan } from "../../tensor/plan.ts";
import type { Recipe } from "../recipe/recipe.ts";

/** Bytes on the GPU. */
export interface RunMemory {
  readonly byCategory: ReadonlyMap<string, number>;
  readonly total: number;
}

/** Lines of a memory table in the order in which they are shown; others follow. */
const CATEGORIES = [
  "teacher weights",
  "student weights",
  "adapter and optimiser",
  "program",
  "inputs",
  "activations",
  "keys and values",
];

/** What the training program takes, and the writing of samples beside it. */
export function runMemory(plan: Plan, sampleBytes: number): RunMemory {
  const place = (name: string) => (CATEGORIES.indexOf(name) + 1) || CATEGORIES.length + 1;
  const byCategory = new Map([...plan.bytesByCategory].sort(([a], [b]) => place(a) - place(b)));
  if (sampleBytes > 0) byCategory.set("samples", sampleBytes);
  return { byCategory, total: plan.totalBytes + sampleBytes };
}

/** Bytes of weights on the GPU by line of a memory table and by the type in which they lie there, the most bytes first. */
export function weightTypes(plan: Plan): Record<string, Record<string, number>> {
  const lines: Record<string, Record<string, number>> = {};
  for (const { kind, category, dtype, bytes } of plan.storages.values()) {
    if (kind !== "weight") continue;
    const types = lines[category] ??= {};
    types[dtype] = (types[dtype] ?? 0) + bytes;
  }
  for (const [category, types] of Object.entries(lines)) {
    lines[category] = Object.fromEntries(Object.entries(types).sort(([, a], [, b]) => b - a));
  }
  return lines;
}

/** What there is to take from. */
export interface Allowance {
  readonly bytes: number;
  /** Whose bound it is, such as `limits.gpuBytes`. */
  readonly name: string;
}

/**
 * The error of a run that does not fit: every number, and what in the recipe can be turned.
 *
 * @param recompute whether activations are already computed twice
 */
export function memoryError(
  memory: RunMemory,
  allowed: Allowance,
  recipe: Recipe,
  recompute: boolean,
): DeviceError {
  const parts = [...memory.byCategory].map(([name, size]) => `${name} ${bytes(size)}`).join(", ");
  return new DeviceError(
    `the run needs ${bytes(memory.total)} on the GPU (${memory.total} bytes: ${parts}), ` +
      `but ${allowed.name} allows ${bytes(allowed.bytes)} (${allowed.bytes} bytes)`,
    { hint: knobs(memory, allowed, recipe, recompute) },
  );
}

function knobs(memory: RunMemory, allowed: Allowance, recipe: Recipe, recompute: boolean) {
  const { train, data, samples, student, teacher, adapter } = recipe;
  const weights = [...memory.byCategory].filter(([name]) => name.endsWith("weights"))
    .reduce((sum, [, size]) => sum + size, 0);
  const raise = allowed.name.startsWith("limits.") ? `, or raise ${allowed.name}` : "";
  if (weights > allowed.bytes) {
    const whole = (["teacher", "student"] as const).filter((model) => !recipe[model].quantize);
    const smaller = whole.length === 0
      ? ""
      : `, or keep linear layers in 4 bits (${whole.map((model) => `${model}.quantize: nf4`).join(", ")})`;
    const streamed = teacher.stream === false ? ", leave out teacher.stream: false" : "";
    return `The weights alone take ${bytes(weights)}: choose smaller models${smaller}${streamed}${raise}.`;
  }
  const shorter = train.tokensPerMicroBatch <= data.contextLength ? " and data.contextLength" : "";
  const choices = [
    `lower train.tokensPerMicroBatch${shorter} (and raise train.accumulation for it)`,
    ...(recompute ? [] : ["set train.activationCheckpointing: on"]),
    "lower train.headChunk",
    ...(adapter === "none" ? [] : ["lower adapter.rank"]),
    ...(student.train?.length ? ["train fewer tensors in student.train (16 bytes a value)"] : []),
    ...(teacher.stream === false ? ["leave out teacher.stream: false"] : []),
    ...(train.onPolicy ? ["lower train.onPolicy.together"] : []),
    ...(samples.tokens > 0 ? ["set samples.tokens: 0"] : []),
  ];
  const [first, ...others] = choices;
  return `${first![0]!.toUpperCase()}${first!.slice(1)}, ${others.join(", ")}${raise}.`;
}
