/**
 * What a run wants of a teacher behind a server, found in a process of its own: tokenizers, templates and plugins are run there, and it
 * has no network; the process that has one sees token ids alone.
 *
 * @module
 */
import type { Recipe } from "../../distill/recipe/recipe.ts";
import type { CacheOrigin } from "../../distill/teacher/origin.ts";
import type { ProbeText } from "../../served/served_model.ts";
import { LimbeckError } from "../../base/errors.ts";
import { errorOf, howItEnded, isTold, withChild } from "./host.ts";
import type { ToldError } from "./told_error.ts";

/** What the process is to look at. */
export interface ServedOrder {
  readonly recipe: Recipe;
  /** The run's own folder of caches, where the recipe names none. */
  readonly place: string;
}

/** A sample that the server is asked about. */
export interface WantedSample {
  /** Hash of its tokens and of its positions with a row. */
  readonly hash: string;
  readonly ids: readonly number[];
  /** Positions that have a row, rising. */
  readonly positions: readonly number[];
  /** Tokens whose loss is counted where the teacher is measured, rising; absent where it is not measured on it. */
  readonly measured?: readonly number[];
  /** Its text without a BOS, where the tokenizer makes just its tokens of that again; for servers that take no ids. */
  readonly text?: string;
  /** Where it stands, for errors. */
  readonly where: string;
}

/** All that is wanted of one teacher. */
export interface WantedAnswers {
  /** Its number in the recipe. */
  readonly teacher: number;
  readonly origin: CacheOrigin;
  /** Folder of caches. */
  readonly place: string;
  /** Different samples, those for training first. */
  readonly samples: readonly WantedSample[];
  /** Whether the loss on each sample is kept, where it is measured on it: of several teachers it tells which is the best. */
  readonly keepsLosses: boolean;
  /** Held-out sets that it is measured on: identity, and hashes of their samples. */
  readonly heldOut: readonly { readonly id: string; readonly hashes: readonly string[] }[];
  readonly probe: ProbeText;
  /** Text of each token of the vocabulary, by id. */
  readonly texts: readonly string[];
}

/** What the process says: of each teacher what is wanted and then its samples; in the end the vocabulary, which all share. */
export type ServedMessage =
  | ({ readonly type: "wanted" } & Omit<WantedAnswers, "samples" | "texts">)
  | { readonly type: "samples"; readonly samples: readonly WantedSample[] }
  | { readonly type: "texts"; readonly texts: readonly string[] }
  | { readonly type: "done" }
  | ({ readonly type: "error" } & ToldError);

/** Seconds that it may be silent: it reads all data before it says anything. */
const PATIENCE = 600;

/**
 * Finds what a run wants of each of its teachers that are behind servers, in the recipe's order.
 *
 * @param plugins absolute paths, and packages with their version
 * @throws {InputError} whatever is wrong with the recipe, its models, data or plugins
 */
export async function wantedAnswers(
  order: ServedOrder,
  plugins: readonly string[] = [],
  signal?: AbortSignal,
): Promise<WantedAnswers[]> {
  const entry = new URL("./inside/served_entry.ts", import.meta.url).href;
  const { recipe } = order;
  return await withChild<ServedMessage, WantedAnswers[]>(
    { entry, plugins, order, recipe, heapMegabytes: 4096, signal },
    async (child) => {
      child.sendNoMore();
      child.expect(PATIENCE);
      const wanted: (Omit<WantedAnswers, "samples" | "texts"> & { samples: WantedSample[] })[] = [];
      const texts: string[] = [];
      for await (const message of child.messages()) {
        if (isTold(message)) throw errorOf(message);
        if (message.type === "wanted") wanted.push({ ...message, samples: [] });
        if (message.type === "samples") wanted.at(-1)!.samples.push(...message.samples);
        if (message.type === "texts") texts.push(...message.texts);
        if (message.type === "done") return wanted.map((one) => ({ ...one, texts }));
      }
      signal?.throwIfAborted();
      throw new LimbeckError(`the process that reads the data ${howItEnded(await child.ended)}`);
    },
  );
}
