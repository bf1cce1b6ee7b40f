/**
 * What every program of the comparison computes: a model, the layers its student keeps, one batch and an adapter to begin with, all
 * drawn from a counter, so that the same case is the same numbers everywhere.
 *
 * One step is: teacher forward through all layers; student forward through the kept ones with LoRA on all seven linear layers;
 * 0.5 cross-entropy + 0.5 forward KL at temperature 1, averaged over supervised positions; gradients of A and B; clipping by their
 * global norm; AdamW. The base is frozen and everything is f32.
 *
 * @module
 */
import { readArchitecture } from "../../src/models/families.ts";
import { packBatch, type PackedBatch } from "../../src/text/packing.ts";
import { philox4x32, splitSeed } from "../../src/base/random.ts";

/** The cases by name. */
export const CASE_NAMES = ["stories260K", "stories15M"] as const;
/** Name of a case. */
export type CaseName = (typeof CASE_NAMES)[number];

/** Settings of the objective, the adapter and the optimiser, the same in all cases. */
export const SETTINGS = {
  rank: 8,
  alpha: 16,
  crossEntropyWeight: 0.5,
  forwardKlWeight: 0.5,
  learningRate: 1e-3,
  beta1: 0.9,
  beta2: 0.999,
  epsilon: 1e-8,
  weightDecay: 0.01,
  /** Gradients are scaled by min(1, maxNorm / (norm + 1e-6)). */
  maxNorm: 1,
} as const;

/** One adapter tensor: A is [rank, in], B is [out, rank]. */
export interface AdapterTensor {
  readonly shape: [number, number];
  readonly data: Float32Array<ArrayBuffer>;
}

/** One case of the comparison. */
export interface StepCase {
  readonly name: string;
  /** Folder of the teacher in Hugging Face layout; the student is made of the same weights. */
  readonly modelFolder: string;
  /** Teacher layers that make up the student, in order; its layer i is the teacher's keptLayers[i]. */
  readonly keptLayers: readonly number[];
  /** B: sequences in the batch, all of the same length. */
  readonly segments: number;
  /** T: tokens of a sequence. */
  readonly segmentLength: number;
  /** The B sequences back to back: token ids and labels (the next token, or -100) are [B T]. */
  readonly batch: PackedBatch;
  /** The adapter at the start by name, `model.layers.0.self_attn.q_proj.lora_A.weight`, with the student's layer numbers. */
  readonly adapter: ReadonlyMap<string, AdapterTensor>;
}

const CASES: Record<CaseName, { keptLayers: number[]; segments: number; segmentLength: number }> = {
  stories260K: { keptLayers: [0, 1, 2, 4], segments: 4, segmentLength: 256 },
  stories15M: { keptLayers: [0, 1, 3, 5], segments: 1, segmentLength: 256 },
};

/** The first tokens of a segment count as a prompt: they are no targets. */
const PROMPT_TOKENS = 8;
const SEED = 20240918;

/** Where the models are looked for: beside the checkout. */
const MODELS = new URL("../../../shared/models/", import.meta.url);

/** Whether a word names a case. */
export function isCaseName(name: string): name is CaseName {
  return (CASE_NAMES as readonly string[]).includes(name);
}

/**
 * Makes a case; undefined, with the reason printed on standard error, where its model is not on this machine.
 *
 * @example
 * ```ts
 * const stepCase = loadCase("stories260K");
 * if (stepCase) console.log(stepCase.batch.supervised); // 992
 * ```
 */
export function loadCase(name: CaseName): StepCase | undefined {
  const modelFolder = decodeURIComponent(new URL(name, MODELS).pathname);
  let text: string;
  try {
    text = Deno.readTextFileSync(`${modelFolder}/config.json`);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    console.error(`skip: ${name}: there is no model in ${modelFolder}`);
    return undefined;
  }
  const whole = readArchitecture(JSON.parse(text), `${modelFolder}/config.json`);
  const { config } = whole;
  const { keptLayers, segments, segmentLength } = CASES[name];

  const samples = Array.from({ length: segments }, (_, segment) => ({
    ids: tokens(segment, segmentLength, config.vocabularySize, config.bosToken ?? 1),
    supervised: Uint8Array.from({ length: segmentLength }, (_, t) => (t < PROMPT_TOKENS ? 0 : 1)),
    source: { file: name, line: segment + 1 },
  }));

  const adapter = new Map<string, AdapterTensor>();
  let site = 0;
  for (const { name: module, out, in: width } of whole.with({ layers: keptLayers }).linearLayers) {
    // A as PEFT draws it; B small instead of zero, so that A has a gradient in the first step too.
    const a = uniform(SETTINGS.rank * width, 1 / Math.sqrt(width), site++);
    const b = uniform(out * SETTINGS.rank, 0.02, site++);
    adapter.set(`${module}.lora_A.weight`, { shape: [SETTINGS.rank, width], data: a });
    adapter.set(`${module}.lora_B.weight`, { shape: [out, SETTINGS.rank], data: b });
  }
  const batch = packBatch(samples, segments * segmentLength);
  return { name, modelFolder, keptLayers, segments, segmentLength, batch, adapter };
}

/** Purposes that numbers are drawn for, the last word of the counter. */
const TOKENS = 1;
const ADAPTER = 2;

/** BOS, then ids of which low ones are likelier, as in text: vocabularies put bytes and frequent pieces first. */
function tokens(segment: number, length: number, vocabularySize: number, bos: number): Int32Array {
  const [low, high] = splitSeed(SEED);
  return Int32Array.from({ length }, (_, t) => {
    if (t === 0) return bos;
    const u = philox4x32([t, segment, 0, TOKENS], [low, high])[0] / 2 ** 32;
    return 3 + Math.floor((vocabularySize - 3) * u ** 3);
  });
}

/** f32 numbers of [-bound, bound), a function of (site, index). */
function uniform(count: number, bound: number, site: number): Float32Array<ArrayBuffer> {
  const [low, high] = splitSeed(SEED);
  const values = new Float32Array(count);
  for (let i = 0; i < count; i += 4) {
    const words = philox4x32([i / 4, site, 0, ADAPTER], [low, high]);
    for (let j = 0; j < 4 && i + j < count; j++) values[i + j] = (words[j] / 2 ** 31 - 1) * bound;
  }
  return values;
}
