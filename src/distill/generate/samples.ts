/**
 * Sample texts of teacher and student, for the before and after.
 *
 * @module
 */
import type { DeviceDescription } from "../../gpu/description.ts";
import type { EncodedSample } from "../../text/encode.ts";
import { attachOf } from "../trained/attach.ts";
import { generationPlan, Generator, type GeneratorOptions } from "./generator.ts";
import { FLAT } from "../trained/parameters.ts";
import { samplesIdentity, sha256 } from "../inputs/identity.ts";
import { type PreparedRun, stopTokens } from "../inputs/prepare.ts";
import { cacheOf, SERVED } from "../recipe/teachers.ts";
import type { TeacherTexts } from "../teacher/make_cache.ts";
import { canonicalJson } from "../../base/json.ts";
import type { LayerSource } from "../program/streamed/streamed_layers.ts";
import type { Trainer } from "../program/trainer.ts";
import { tableRows } from "../inputs/privileged_teacher.ts";
import { teacherPositions, type TrainingSetup } from "../program/plan_training.ts";
import type { Gpu, GpuBuffer } from "../../gpu/device.ts";
import { TextStream } from "../../text/text_stream.ts";
import type { TextTokenizer } from "../../text/tokenizer.ts";

/** Tokens of a held-out text that serve as a prompt where the recipe names none. */
const PROMPT_TOKENS = 12;

/** What of a setup the student is made with. */
type LearnedStudent = Pick<TrainingSetup, "adapter" | "tensors" | "trainables">;

type SampleSetup = Pick<PreparedRun, "recipe" | "tokenizer" | "heldOut" | "aligned" | "privileged">;

/** The prompts of a run's samples as token ids of a model. */
function samplePrompts(setup: SampleSetup, which: "teacher" | "student"): Int32Array[] {
  const { recipe, heldOut } = setup;
  const tokenizer = tokenizerOf(setup, which);
  const { prompts } = recipe.samples;
  const ids = prompts.length > 0
    ? prompts.map((text) => tokenizer.encode(text))
    : [beginning(heldOut, setup, tokenizer)];
  return ids.map((p) => p.subarray(0, recipe.data.contextLength - 1));
}

/** A teacher may have a tokenizer of its own. */
function tokenizerOf({ tokenizer, aligned }: SampleSetup, which: "teacher" | "student"): TextTokenizer {
  return which === "teacher" && aligned ? aligned.tokenizer : tokenizer;
}

/** The first held-out sample's beginning; in the tokens of a teacher of its own tokenizer the same text. */
function beginning(
  heldOut: readonly EncodedSample[],
  { tokenizer }: SampleSetup,
  wanted: TextTokenizer,
): Int32Array {
  const ids = firstTokens(heldOut);
  return wanted === tokenizer ? ids : wanted.encode(tokenizer.decode(ids, { skipSpecial: true }));
}

function generatorOptions(
  prepared: SampleSetup,
  setup: LearnedStudent,
  which: "teacher" | "student",
  streamed?: LayerSource,
): GeneratorOptions {
  const { trainables } = setup;
  const { recipe: { data }, aligned, privileged } = prepared;
  const attach = which === "student" ? attachOf(setup) : undefined;
  return {
    sequences: Math.min(4, samplePrompts(prepared, which).length),
    // The rotary table of the training program is shared, and it is this long.
    length: which === "teacher" && aligned
      ? teacherPositions(data, aligned.data.longest)
      : tableRows(data, privileged),
    ...(streamed && which === "teacher" ? { streamed } : {}),
    ...(attach
      ? { attach: (graph, prompt) => attach(graph, (name) => trainables.view(graph, name), false, prompt) }
      : {}),
  };
}

/**
 * Bytes that writing samples takes beside the training program, at the most. With a cache the teacher's are written before.
 *
 * @param streamed The teacher's layers, where they come from disk
 */
export function sampleBytes(
  description: DeviceDescription,
  prepared: SampleSetup & Pick<PreparedRun, "teacher" | "student">,
  setup: LearnedStudent,
  streamed?: LayerSource,
): number {
  const own = (which: "teacher" | "student") => sampleBytesOf(description, prepared, setup, which, streamed);
  return cacheOf(prepared.recipe.teacher, 0) ? own("student") : Math.max(own("teacher"), own("student"));
}

/** Bytes that writing samples of one model takes beside its weights. */
function sampleBytesOf(
  description: DeviceDescription,
  prepared: SampleSetup & Pick<PreparedRun, "teacher" | "student">,
  setup: Pick<TrainingSetup, "adapter" | "trainables">,
  which: "teacher" | "student",
  streamed: LayerSource | undefined,
): number {
  if (prepared.recipe.samples.tokens === 0) return 0;
  return generationPlan(description, prepared[which], generatorOptions(prepared, setup, which, streamed))
    .buffers
    .filter(({ storage }) => storage?.kind !== "weight" && !SHARED_STATES.includes(storage?.name ?? ""))
    .reduce((sum, b) => sum + b.bytes, 0);
}

/** What a generator needs of a trainer: weights, and the adapter's parameters, by the name of their storage. */
export function generationBuffers(trainer: Trainer): Map<string, GpuBuffer> {
  const buffers = new Map([...trainer.weights, ...trainer.streamed?.buffers ?? []]);
  for (const name of SHARED_STATES) {
    if (trainer.planned.plan.storages.has(name)) buffers.set(name, trainer.executable.buffer(name));
  }
  return buffers;
}

/**
 * Continues the recipe's prompts, or the beginning of the first held-out sample.
 *
 * @param buffers by the name of their storage
 * @param streamed Where the teacher's layers come from, where they are not there
 */
export async function writeSamples(
  gpu: Gpu,
  buffers: ReadonlyMap<string, GpuBuffer>,
  prepared: PreparedRun,
  setup: Pick<TrainingSetup, "adapter" | "trainables">,
  which: "teacher" | "student",
  streamed?: LayerSource,
): Promise<{ prompt: string; text: string }[]> {
  const { samples } = prepared.recipe;
  const tokenizer = tokenizerOf(prepared, which);
  const prompts = samplePrompts(prepared, which);
  const options = generatorOptions(prepared, setup, which, streamed);
  const generator = await Generator.create(gpu, prepared[which], buffers, options);
  try {
    const texts = await generator.generate(prompts, {
      maxTokens: samples.tokens,
      temperature: samples.temperature,
      topK: samples.topK,
      topP: samples.topP,
      seed: samples.seed,
      stopTokens: which === "teacher" && prepared.aligned
        ? stopTokens(tokenizer, "auto")
        : prepared.stopTokens,
    });
    return texts.map(({ tokens }, i) => {
      const stream = new TextStream(tokenizer, { after: prompts[i]! });
      const text = Array.from(tokens, (id) => stream.push(id)).join("") + stream.end();
      return { prompt: tokenizer.decode(prompts[i]!, { skipSpecial: true }), text };
    });
  } finally {
    generator.destroy();
  }
}

/** Hash of what decides the texts of one model. */
export function textSettings({ recipe, heldOut }: Pick<PreparedRun, "recipe" | "heldOut">): string {
  const { samples, data: { contextLength } } = recipe;
  return sha256(canonicalJson({ samples, contextLength, heldOut: samplesIdentity(heldOut.slice(0, 1)) }));
}

/** What the teacher writes in the pass that makes its cache; undefined where no texts are wanted. */
export function teacherTexts(
  description: DeviceDescription,
  prepared: PreparedRun,
  setup: Pick<TrainingSetup, "adapter" | "trainables">,
): TeacherTexts | undefined {
  // Of one behind a server nothing is here that could write.
  if (prepared.recipe.samples.tokens === 0 || prepared.recipe.teacher.model === SERVED) return undefined;
  return {
    settings: textSettings(prepared),
    bytes: (streamed) => sampleBytesOf(description, prepared, setup, "teacher", streamed),
    write: (gpu, weights, streamed) => writeSamples(gpu, weights, prepared, setup, "teacher", streamed),
  };
}

/** What stands before the first target of a held-out sample, or its first tokens if all of it is learnt. */
function firstTokens(heldOut: readonly EncodedSample[]): Int32Array {
  const { ids, supervised } = heldOut[0]!;
  const first = supervised.indexOf(1);
  return ids.slice(0, first > 1 ? first : Math.min(PROMPT_TOKENS, ids.length - 1));
}

/** What the generator reads of the training program's own states. */
const SHARED_STATES: readonly string[] = [FLAT.parameters, FLAT.fixed];
