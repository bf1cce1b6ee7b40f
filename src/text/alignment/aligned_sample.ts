/**
 * A sample as a second tokenizer has it, and which of its tokens stand for which of the first.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { DatasetRow } from "../dataset.ts";
import { type EncodedSample, type EncodeOptions, encodeRow, type OtherEncoding } from "../encode.ts";
import type { TextTokenizer } from "../tokenizer.ts";
import { groupsByEditDistance } from "./edit_distance.ts";
import { groupsByEnds } from "./groups.ts";
import { spell, type Spelling, tokenBytes } from "./spell.ts";

/** What makes tokens of two tokenisations one group. */
export type AlignBy = "bytes" | "edit-distance";

/** How a side encodes rows; its samples are not cut. */
export type SideEncoding = Omit<EncodeOptions, "contextLength" | "tooLong" | "align">;

/** Places of a run of tokens in a sample. */
interface Run {
  readonly start: number;
  readonly end: number;
}

/** The two sides of a row, to be aligned part by part. */
interface Side {
  readonly tokenizer: TextTokenizer;
  readonly ids: Int32Array;
}

/**
 * Encodes a row for the second tokenizer and aligns it with the first one's encoding of the whole row.
 *
 * Texts, and prompts with their completion, are aligned from end to end; the tokens that end them are a group of their own. Of a
 * conversation, which each side renders by its own template, the text of every assistant turn is aligned, and the special tokens that end
 * the turn one by one.
 *
 * @param sample The row as the first side encodes it, in full
 * @throws {InputError} a row whose bytes the two sides do not spell alike, where they are to be aligned by bytes
 */
export function alignRow(
  row: DatasetRow,
  sample: EncodedSample,
  first: SideEncoding,
  second: SideEncoding,
  by: AlignBy,
): OtherEncoding {
  const where = `${row.source.file}:${row.source.line}`;
  if (row.shape === "pair") {
    throw new InputError("a row of a chosen and a rejected answer cannot be aligned with another tokenizer", {
      where,
      hint: "Leave out teacher.align, or make it a row of prompt and completion.",
    });
  }
  const other = encodeRow(row, { ...second, contextLength: Infinity });
  const sides = [
    { tokenizer: first.tokenizer, ids: sample.ids },
    { tokenizer: second.tokenizer, ids: other.ids },
  ] as const;
  const text = textOf(row, first);
  const groups = text === undefined
    ? conversationGroups(row, sides, [first, second], by, where)
    : textGroups(text, sides, [first, second], by, where);
  return { ids: other.ids, supervised: other.supervised, groups: Int32Array.from(groups) };
}

/** The text of a row that both sides encode as it is. */
function textOf(row: DatasetRow, { promptsAsChat }: SideEncoding): string | undefined {
  if (row.shape === "text") return row.text;
  return row.shape === "prompt" && !promptsAsChat ? row.prompt + row.completion : undefined;
}

/** Four numbers a group: first token and one past the last, of either side. */
function textGroups(
  text: string,
  sides: readonly [Side, Side],
  encodings: readonly [SideEncoding, SideEncoding],
  by: AlignBy,
  where: string,
): number[] {
  const runs = sides.map(({ tokenizer, ids }, i): Run => {
    const own = tokenizer.encode(text, { addBos: false, special: encodings[i]!.specialInText === true });
    const start = ids.length > own.length && ids[0] !== own[0] ? tokenizer.bosPolicy.prefix.length : 0;
    return { start, end: start + own.length };
  });
  const groups = runGroups(text, sides, runs as [Run, Run], by, where);
  const [a, b] = runs as [Run, Run];
  // What is left is the token that ends the text.
  if (a.end < sides[0].ids.length && b.end < sides[1].ids.length) {
    groups.push(a.end, a.end + 1, b.end, b.end + 1);
  }
  return groups;
}

function runGroups(
  text: string,
  sides: readonly [Side, Side],
  runs: readonly [Run, Run],
  by: AlignBy,
  where: string,
): number[] {
  const ids = sides.map((side, i) => side.ids.subarray(runs[i]!.start, runs[i]!.end));
  const starts = runs.map(({ start }) => start) as [number, number];
  if (by === "edit-distance") {
    const [a, b] = sides.map(({ tokenizer }, i) =>
      Array.from(ids[i]!, (id) => tokenBytes(tokenizer, id) ?? NO_BYTES)
    ) as [Uint8Array[], Uint8Array[]];
    return placed(groupsByEditDistance(a, b), starts);
  }
  const [a, b] = sides.map(({ tokenizer }, i) => spell(tokenizer, text, ids[i]!));
  if (!a || !b || !isSame(a.bytes, b.bytes)) throw spellingError(text, sides, [a, b], where);
  return placed(groupsByEnds(a.ends, b.ends), starts);
}

const NO_BYTES = new Uint8Array();

function placed(sizes: Int32Array, [a, b]: readonly [number, number]): number[] {
  const groups: number[] = [];
  for (let g = 0; g < sizes.length; g += 2) {
    groups.push(a, a += sizes[g]!, b, b += sizes[g + 1]!);
  }
  return groups;
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/** Rows whose tokens do not stand for the same bytes on both sides. */
export class SpellingError extends InputError {}

function spellingError(
  text: string,
  sides: readonly [Side, Side],
  [a, b]: readonly (Spelling | undefined)[],
  where: string,
): SpellingError {
  const names = sides.map(({ tokenizer }) => tokenizer.where);
  const lacking = [a, b].findIndex((s) => s === undefined);
  let what: string;
  if (lacking >= 0) {
    const { tokenizer } = sides[lacking]!;
    what = tokenizer.spelling
      ? `${names[lacking]} has no token for a part of it`
      : `${names[lacking]} does not write its tokens in bytes`;
  } else {
    let at = 0;
    while (a!.bytes[at] === b!.bytes[at]) at++;
    const shown = (s: Spelling) =>
      JSON.stringify(new TextDecoder().decode(s.bytes.subarray(Math.max(0, at - 6), at + 8)));
    what = `from byte ${at} on ${names[0]} spells ${shown(a!)} and ${names[1]} ${shown(b!)}`;
  }
  return new SpellingError(
    `the two tokenizers do not spell ${JSON.stringify(text.slice(0, 40))} alike: ${what}`,
    {
      where,
      hint: "Normalise the data to NFC, leave such rows out (teacher.align.unlike: skip), or align by " +
        "edit distance (teacher.align.by: edit-distance).",
    },
  );
}

/** Groups of the assistant's turns. */
function conversationGroups(
  row: DatasetRow,
  sides: readonly [Side, Side],
  encodings: readonly [SideEncoding, SideEncoding],
  by: AlignBy,
  where: string,
): number[] {
  const all = row.shape === "messages"
    ? row.messages.filter((m) => m.role === "assistant").map((m) => String(m.content ?? ""))
    : [row.shape === "prompt" ? row.completion : ""];
  const [own, other] = encodings.map((encoding) =>
    supervisedRuns(encodeRow(row, { ...encoding, mask: "completion", contextLength: Infinity }).supervised)
  ) as [Run[], Run[]];
  // Where only the last turn is learnt, only that one is marked.
  const contents = encodings.some(({ turns = "all" }) => turns !== "all") ? all.slice(-1) : all;
  if (own.length !== contents.length || other.length !== contents.length) {
    throw new SpellingError(
      `the conversation has ${contents.length} assistant turns, of which the student's template shows ` +
        `${own.length} and the teacher's ${other.length}`,
      { where, hint: "Write one row for each assistant turn, or rows of prompt and completion." },
    );
  }
  return contents.flatMap((content, turn) =>
    turnGroups(content, sides, [own[turn]!, other[turn]!], by, where)
  );
}

function supervisedRuns(supervised: Uint8Array): Run[] {
  const runs: Run[] = [];
  for (let i = 0; i < supervised.length; i++) {
    if (!supervised[i]) continue;
    const start = i;
    while (i < supervised.length && supervised[i]) i++;
    runs.push({ start, end: i });
  }
  return runs;
}

/** A turn's text: tokens and ends counted from its first byte. */
function turnGroups(
  content: string,
  sides: readonly [Side, Side],
  runs: readonly [Run, Run],
  by: AlignBy,
  where: string,
): number[] {
  const texts = runs.map((run, i): Run => {
    const { tokenizer, ids } = sides[i]!;
    let { end } = run;
    while (end > run.start && tokenizer.isSpecial(ids[end - 1]!)) end--;
    return { start: run.start, end };
  }) as [Run, Run];
  const groups = by === "edit-distance"
    ? runGroups(content, sides, texts, by, where)
    : contentGroups(content, sides, texts, where);
  const [a, b] = runs.map((run, i) => run.end - texts[i]!.end) as [number, number];
  if (a === b) {
    for (let k = 0; k < a; k++) {
      groups.push(texts[0].end + k, texts[0].end + k + 1, texts[1].end + k, texts[1].end + k + 1);
    }
  }
  return groups;
}

/** Groups inside of a turn's content, which templates may surround with white space of their own. */
function contentGroups(
  content: string,
  sides: readonly [Side, Side],
  runs: readonly [Run, Run],
  where: string,
): number[] {
  const spelt = sides.map(({ tokenizer, ids }, i) =>
    spell(tokenizer, "", ids.subarray(runs[i]!.start, runs[i]!.end))
  );
  for (const wanted of [content, content.trim()].map((text) => new TextEncoder().encode(text))) {
    const offsets = spelt.map((s) => s ? indexOf(s.bytes, wanted) : -1);
    if (offsets.some((offset) => offset < 0)) continue;
    const parts = spelt.map((s, i) => inside(s!.ends, offsets[i]!, wanted.length));
    const [a, b] = parts as [Part, Part];
    if (a.ends.length === 0 || b.ends.length === 0) return [];
    const groups = placed(groupsByEnds(a.ends, b.ends), [runs[0].start + a.first, runs[1].start + b.first]);
    // A token that goes on beyond the content on one side stands for other bytes than those beside it.
    return a.beyond === 0 && b.beyond === 0 ? groups : groups.slice(0, -4);
  }
  throw spellingError(content, sides, spelt, where);
}

interface Part {
  readonly first: number;
  readonly ends: number[];
  /** Bytes by which the last token goes beyond. */
  readonly beyond: number;
}

/** The tokens of a part of the bytes, their ends counted from its start. */
function inside(ends: Int32Array, offset: number, length: number): Part {
  let first = 0;
  while (first < ends.length && ends[first]! <= offset) first++;
  let last = first;
  while (last < ends.length && ends[last]! < offset + length) last++;
  const own = Array.from(ends.subarray(first, last + 1), (end) => end - offset);
  const beyond = Math.max(0, (own.at(-1) ?? 0) - length);
  return { first, ends: own.map((end) => Math.min(end, length)), beyond };
}

function indexOf(bytes: Uint8Array, wanted: Uint8Array): number {
  for (let at = 0; at + wanted.length <= bytes.length; at++) {
    if (wanted.every((byte, i) => byte === bytes[at + i])) return at;
  }
  return -1;
}
