/**
 * Texts that are taken in whole: they share the rows of one cache of keys and values, so that many short ones go through a program with
 * the same pass, and a long one piece by piece.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { StreamOptions } from "../../models/context.ts";
import type { Executable } from "../../tensor/executable.ts";
import { writeStream } from "../program/fed/stream.ts";

/** A token of one of the texts. */
export interface Feed {
  readonly text: number;
  readonly position: number;
  /** First row of the cache that its text has. */
  readonly offset: number;
}

/** How texts go through a block. */
export interface PassOptions {
  readonly block: string;
  /** Longest text; as many tokens of shorter ones are taken in together. */
  readonly length: number;
  /** Tokens of one pass. */
  readonly count: number;
}

/** Rows of logits, or of hidden states, that are handled at a time. */
export const CHUNK = 64;

/** Tokens of one pass: a multiple of {@linkcode CHUNK}, no more than the longest text needs. */
export function passTokens(length: number, wanted = 128): number {
  return Math.min(wanted, Math.ceil(length / CHUNK) * CHUNK);
}

/** The stream of a block through which texts go. */
export function passStream({ block, length }: Pick<PassOptions, "block" | "length">): StreamOptions {
  return { length, cacheRows: length, prefix: `${block}.` };
}

/**
 * Takes texts in.
 *
 * @param texts Token ids of the model's vocabulary, each at least one
 * @param write Writes what else the block reads, of each pass
 * @returns the tokens of each pass, one a row, once it has been asked to run
 * @throws {InputError} if a text is empty or too long
 */
export function* passes(
  executable: Executable,
  texts: readonly Int32Array[],
  options: PassOptions,
  write: (feeds: readonly Feed[]) => void = () => {},
): Generator<readonly Feed[]> {
  const { block, length, count } = options;
  texts.forEach((tokens, i) => {
    if (tokens.length >= 1 && tokens.length <= length) return;
    throw new InputError(
      `text ${i + 1} has ${tokens.length} tokens; it must have at least 1 and at most ${length}`,
    );
  });
  for (const feeds of together(texts, length)) {
    for (let at = 0; at < feeds.length; at += count) {
      const some = feeds.slice(at, at + count);
      feed(executable, texts, some, options);
      write(some);
      executable.run(block);
      yield some;
    }
  }
}

/** The tokens of texts, as many of which as the cache has rows for are taken in together. */
function* together(texts: readonly Int32Array[], length: number): Iterable<Feed[]> {
  let feeds: Feed[] = [];
  for (const [text, tokens] of texts.entries()) {
    if (feeds.length + tokens.length > length) {
      yield feeds;
      feeds = [];
    }
    const offset = feeds.length;
    for (let position = 0; position < tokens.length; position++) feeds.push({ text, position, offset });
  }
  if (feeds.length > 0) yield feeds;
}

/** Writes a pass. Rows beyond its tokens write no cache and attend to nothing. */
function feed(
  executable: Executable,
  texts: readonly Int32Array[],
  feeds: readonly Feed[],
  { block, count }: PassOptions,
): void {
  const column = (value: (f: Feed) => number, filler: number) => passColumn(feeds, count, value, filler);
  const stream = {
    tokens: column((f) => texts[f.text]![f.position]!, 0),
    positions: column((f) => f.position, 0),
    start: column((f) => f.offset, 0),
    end: column((f) => f.offset + f.position + 1, 0),
  };
  const reach = (t: number) => feeds[t] ? texts[feeds[t]!.text]!.length : 0;
  writeStream(executable, stream, reach, `${block}.`);
  executable.write(`${block}.slots`, column((f) => f.offset + f.position, -1));
}

/** A number for each row of a pass. */
export function passColumn(
  feeds: readonly Feed[],
  count: number,
  value: (f: Feed) => number,
  filler: number,
): Int32Array<ArrayBuffer> {
  return Int32Array.from({ length: count }, (_, i) => feeds[i] ? value(feeds[i]!) : filler);
}
