/**
 * Where the groups of a batch lie: which rows of either model's stream stand for them, and which give their factors.
 *
 * @module
 */
import { APART, type GroupRows } from "../../../losses/group_contract.ts";
import type { EncodedSample } from "../../../text/encode.ts";
import { MOST_TOKENS } from "../../../text/alignment/groups.ts";
import { IGNORED_LABEL } from "../../../text/packing.ts";

/** Sizes of the inputs that groups go through. */
export interface GroupSizes {
  /** Most groups of a batch, G. */
  readonly groups: number;
  /** Tokens of each stream. */
  readonly student: number;
  readonly teacher: number;
  /** Most tokens of a group on either side beside the one that is its base, at least 1. */
  readonly studentFactors: number;
  readonly teacherFactors: number;
}

/** The places in one model's stream; see `GroupStream`. */
export interface PlacedStream {
  readonly base: Int32Array<ArrayBuffer>;
  readonly baseOf: Int32Array<ArrayBuffer>;
  readonly factors: Int32Array<ArrayBuffer>;
  readonly factorOf: Int32Array<ArrayBuffer>;
  readonly tokens: Int32Array<ArrayBuffer>;
}

/** The places of all groups of a batch. */
export interface PlacedGroups {
  readonly count: number;
  /** i32 [G]: 0, or of mapped rows the student's token, with the bit `APART` where the teacher has none; -100 where there is no group. */
  readonly counted: Int32Array<ArrayBuffer>;
  readonly student: PlacedStream;
  readonly teacher: PlacedStream;
}

/** A group that counts: its tokens in the two encodings of its sample, ends not included. */
interface Counted {
  readonly own: readonly [number, number];
  /** Absent where the student's token of a mapped row stands alone. */
  readonly other?: readonly [number, number];
}

/**
 * The groups of a sample that count: all tokens of both sides are targets. With `positional` rows the k-th target of one side and the k-th of
 * the other; with `mapped` ones each target of the student, and the teacher's where the two alone are a group.
 */
export function countedGroups({ supervised, other }: EncodedSample, rows: GroupRows): Counted[] {
  if (!other) return [];
  if (rows === "positional") {
    const places = (flags: Uint8Array) => [...flags.keys()].filter((i) => flags[i]);
    const [own, others] = [places(supervised), places(other.supervised)];
    return own.slice(0, others.length).map((i, k) => ({
      own: [i, i + 1],
      other: [others[k]!, others[k]! + 1],
    }));
  }
  if (rows === "mapped") return mappedTokens({ supervised, other });
  const found: Counted[] = [];
  const { groups } = other;
  for (let g = 0; g < groups.length; g += 4) {
    const [a, b, c, d] = groups.subarray(g, g + 4) as unknown as [number, number, number, number];
    if (Math.max(b - a, d - c) > MOST_TOKENS) continue;
    if (!isAll(supervised, a, b) || !isAll(other.supervised, c, d)) continue;
    found.push({ own: [a, b], other: [c, d] });
  }
  return found;
}

function mappedTokens(
  { supervised, other }: Required<Pick<EncodedSample, "supervised" | "other">>,
): Counted[] {
  const { groups, supervised: others } = other;
  const beside = new Map<number, number>();
  for (let g = 0; g < groups.length; g += 4) {
    const [a, b, c, d] = groups.subarray(g, g + 4) as unknown as [number, number, number, number];
    if (b - a === 1 && d - c === 1 && others[c]) beside.set(a, c);
  }
  return [...supervised.keys()].filter((i) => supervised[i]).map((i): Counted => {
    const c = beside.get(i);
    return { own: [i, i + 1], ...(c === undefined ? {} : { other: [c, c + 1] }) };
  });
}

function isAll(flags: Uint8Array, start: number, end: number): boolean {
  for (let i = start; i < end; i++) if (!flags[i]) return false;
  return true;
}

/** Places the groups of samples that lie in two streams back to back, in order. */
export function placeGroups(
  members: readonly EncodedSample[],
  rows: GroupRows,
  sizes: GroupSizes,
): PlacedGroups {
  const student = emptyStream(sizes.groups, sizes.student, sizes.studentFactors);
  const teacher = emptyStream(sizes.groups, sizes.teacher, sizes.teacherFactors);
  const counted = new Int32Array(sizes.groups).fill(IGNORED_LABEL);
  let [count, start, otherStart] = [0, 0, 0];
  for (const member of members) {
    const { ids, other } = member;
    for (const group of countedGroups(member, rows)) {
      if (count === sizes.groups) throw new RangeError(`a batch has more than ${count} groups`);
      counted[count] = rows === "mapped" ? ids[group.own[0]]! | (group.other ? 0 : APART) : 0;
      place(student, count, rows, group.own, start, ids);
      if (group.other) place(teacher, count, rows, group.other, otherStart, other!.ids);
      count++;
    }
    start += ids.length;
    otherStart += other?.ids.length ?? 0;
  }
  return { count, counted, student, teacher };
}

function emptyStream(groups: number, tokens: number, each: number): PlacedStream {
  return {
    base: new Int32Array(groups).fill(-1),
    baseOf: new Int32Array(tokens).fill(-1),
    factors: new Int32Array(groups * each).fill(-1),
    factorOf: new Int32Array(tokens).fill(-1),
    tokens: new Int32Array(tokens).fill(IGNORED_LABEL),
  };
}

/** Row i - 1 of a sample predicts its token i. */
function place(
  { base, baseOf, factors, factorOf, tokens }: PlacedStream,
  group: number,
  rows: GroupRows,
  [first, end]: readonly [number, number],
  start: number,
  ids: Int32Array,
): void {
  const each = factors.length / base.length;
  const basis = rows === "chain" ? end - 1 : first;
  base[group] = start + basis - 1;
  baseOf[start + basis - 1] = group;
  if (rows !== "chain" && rows !== "observed") return;
  let k = 0;
  for (let i = first; i < end; i++) {
    if (i === basis) continue;
    if (k === each) throw new RangeError(`a group has more than ${each + 1} tokens`);
    const row = start + i - 1;
    factors[group * each + k++] = row;
    factorOf[row] = group;
    tokens[row] = ids[i]!;
  }
}
