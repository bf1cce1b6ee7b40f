/**
 * Which samples of the next batches leave for texts of the student, and what is asked of it in their place.
 *
 * @module
 */
import { permutation, philox4x32, splitSeed } from "../../base/random.ts";
import type { EncodedSample } from "../../text/encode.ts";
import { packBatch, type PackedBatch } from "../../text/packing.ts";
import { ON_POLICY, type OnPolicyRecipe } from "../recipe/recipe.ts";
import type { WrittenSample } from "../program/written/written_samples.ts";

/** What decides which samples leave, and how long answers may be. */
export interface WindowOptions
  extends Pick<OnPolicyRecipe, "ratio" | "tokens" | "promptTokens" | "temperature"> {
  readonly contextLength: number;
  /** Privileged tokens of a batch, where the teacher is told more than the student. */
  readonly privilegedTokens?: number | undefined;
  readonly seed: number;
  /** Steps done before the first of the batches. */
  readonly step: number;
}

/** An answer that is wanted. */
export interface Request {
  /** Place of its batch among those that were given. */
  readonly batch: number;
  /** The sample whose prompt it answers, by its place in the batch. */
  readonly member: number;
  readonly prompt: Int32Array;
  /** Most tokens, the stop token with them. */
  readonly limit: number;
}

/** What becomes of some batches. */
export interface RolloutWindow {
  /** For each batch, the places of the samples that leave, rising. */
  readonly leaving: readonly (readonly number[])[];
  readonly requests: readonly Request[];
}

/** An answer. Plain JSON. */
export interface Answer {
  /** The sample whose prompt it answers, by its place in its batch. */
  readonly member: number;
  /** What is learnt: the tokens after the prompt, the stop token with them. */
  readonly tokens: readonly number[];
  /** Of each of them, when it was drawn. */
  readonly logProbabilities: readonly number[];
}

/** Tells these random numbers from those of other users of a seed. */
const SITE = 0x726f6c6c;

/**
 * The prompt of a sample: all before what is learnt of it last, such as the last turn of an assistant. Of a text that is learnt whole, its
 * first `promptTokens` tokens.
 */
export function promptOf({ ids, supervised }: EncodedSample, promptTokens: number): Int32Array {
  let start = supervised.lastIndexOf(1);
  while (start > 0 && supervised[start - 1] === 1) start--;
  return ids.subarray(0, start > 1 ? start : Math.max(1, Math.min(promptTokens, ids.length - 1)));
}

/**
 * Chooses the samples that leave, a share `ratio` of each batch and on the average exactly that, and asks for as many answers to their
 * prompts, in turn, as fit into what they leave behind, were each of them as long as it may be; for one at least. A pure function of its
 * arguments.
 */
export function rolloutWindow(batches: readonly PackedBatch[], options: WindowOptions): RolloutWindow {
  const { ratio, tokens, promptTokens, temperature, contextLength, seed, step } = options;
  const { privilegedTokens = Infinity } = options;
  const requests: Request[] = [];
  const leaving = batches.map(({ members, tokens: { length } }, batch) => {
    const counter = [step, batch, 0, SITE] as const;
    const [word, orderSeed] = philox4x32(counter, splitSeed(seed));
    const count = Math.min(members.length, Math.floor(ratio * members.length + word / 2 ** 32));
    const chosen = [...permutation(members.length, orderSeed, 0)].slice(0, count);
    const left = chosen.filter((member) => promptOf(members[member]!, promptTokens).length < contextLength);
    const stay = members.filter((_, i) => !left.includes(i));
    let room = length - stay.reduce((sum, { ids }) => sum + ids.length, 0);
    let beside = privilegedTokens - stay.reduce((sum, sample) => sum + privilegedOf(sample), 0);
    /** Asks each of those that leave whose answer fits; returns whether one does. */
    const ask = (isFirst: boolean) => {
      const before = requests.length;
      for (const member of left) {
        const prompt = promptOf(members[member]!, promptTokens);
        const most = Math.min(tokens, contextLength - prompt.length);
        const limit = isFirst && requests.length === before ? Math.min(most, room - prompt.length) : most;
        const told = privilegedOf(members[member]!);
        if (prompt.length + limit > room || told > beside) continue;
        room -= prompt.length + limit;
        beside -= told;
        requests.push({ batch, member, prompt, limit });
      }
      return requests.length > before;
    };
    // A second answer to a prompt is another one only where it is drawn.
    for (let more = ask(true); more && temperature > 0;) more = ask(false);
    return left.sort((a, b) => a - b);
  });
  return { leaving, requests };
}

function privilegedOf({ privileged }: EncodedSample): number {
  return privileged?.ids.length ?? 0;
}

/** A batch in which answers stand for the samples that left. */
export function withAnswers(
  batch: PackedBatch,
  leaving: readonly number[],
  answers: readonly Answer[],
  promptTokens: number,
): PackedBatch {
  if (leaving.length === 0) return batch;
  const kept = batch.members.filter((_, i) => !leaving.includes(i));
  const written = answers.map(({ member, tokens, logProbabilities }): WrittenSample => {
    const { source, privileged } = batch.members[member]!;
    const prompt = promptOf(batch.members[member]!, promptTokens);
    const ids = Int32Array.from([...prompt, ...tokens]);
    const supervised = Uint8Array.from(ids, (_, t) => Number(t >= prompt.length));
    return {
      ...{ ids, supervised, source, origin: ON_POLICY, logProbabilities },
      ...(privileged ? { privileged } : {}),
    };
  });
  return packBatch([...kept, ...written], batch.tokens.length);
}
