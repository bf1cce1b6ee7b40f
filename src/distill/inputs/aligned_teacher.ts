/**
 * A teacher with a tokenizer of its own: what of it and of the data is known once all rows are encoded for both models.
 *
 * @module
 */
import { count } from "../../base/units.ts";
import type { ChatTemplate } from "../../text/chat_template.ts";
import type { EncodedSample } from "../../text/encode.ts";
import { MOST_TOKENS } from "../../text/alignment/groups.ts";
import { matchedTokens } from "../../text/alignment/matched_tokens.ts";
import { nearestTokens } from "../../text/alignment/nearest_tokens.ts";
import type { AlignRecipe } from "../recipe/recipe.ts";
import type { TextTokenizer } from "../../text/tokenizer.ts";

/** What the program, and what measures, must know of such a teacher. */
export interface AlignedTeacher {
  readonly tokenizer: TextTokenizer;
  readonly template: ChatTemplate | undefined;
  /** i32 [V + W]: of each of the student's tokens the teacher's that stands for the same, or -1; then the other way round. */
  readonly match: Int32Array<ArrayBuffer>;
  /** How many tokens stand for the same. */
  readonly matched: number;
  /** How many of them only nearly, where such are wanted. */
  readonly near?: number;
  readonly data: AlignedData;
}

/** What is planned from the data. */
export interface AlignedData {
  /** Tokens of the longest sample in the teacher's encoding. */
  readonly longest: number;
  /** The teacher's tokens for each of the student's, over all samples. */
  readonly ratio: number;
  /** Most tokens of a group on either side beside its base, at least 1. */
  readonly studentFactors: number;
  readonly teacherFactors: number;
}

/** How the data came out, for people. */
export function alignmentText({ aligned, train, heldOut }: {
  readonly aligned: AlignedTeacher;
  readonly train: readonly EncodedSample[];
  readonly heldOut: readonly EncodedSample[];
}): string {
  let [groups, pairs, largest] = [0, 0, 0];
  for (const { other } of [...train, ...heldOut]) {
    for (let g = 0; g < (other?.groups.length ?? 0); g += 4) {
      const [a, b, c, d] = other!.groups.subarray(g, g + 4) as unknown as [number, number, number, number];
      groups++;
      pairs += Number(b - a === 1 && d - c === 1);
      largest = Math.max(largest, b - a, d - c);
    }
  }
  return `the teacher reads the texts in ${
    aligned.data.ratio.toFixed(2)
  } of its tokens for each of the student's; ` +
    `${count(groups)} groups of tokens stand for the same, ${
      Math.round(100 * pairs / Math.max(1, groups))
    } % of them one token each, ` +
    `the largest of ${largest}; ${
      count(aligned.matched - (aligned.near ?? 0))
    } tokens are in both vocabularies${
      aligned.near === undefined ? "" : `, and ${count(aligned.near)} more have one that is an edit away`
    }`;
}

/** Tokens that stand for the same, or with `vocabulary: nearest` nearly so, both ways. */
export function matchTokens(
  student: TextTokenizer,
  teacher: TextTokenizer,
  { rows, teacherRows, vocabulary }: {
    readonly rows: number;
    readonly teacherRows: number;
    readonly vocabulary?: AlignRecipe["vocabulary"];
  },
): Pick<AlignedTeacher, "match" | "matched" | "near"> {
  const same = matchedTokens(student, teacher);
  const near = vocabulary === "nearest" ? nearestTokens(student, teacher, same) : undefined;
  const match = new Int32Array(rows + teacherRows).fill(-1);
  for (const pairs of [same, ...(near ? [near] : [])]) {
    pairs.student.forEach((v, k) => {
      match[v] = pairs.teacher[k]!;
      match[rows + pairs.teacher[k]!] = v;
    });
  }
  const count = near?.student.length ?? 0;
  return { match, matched: same.student.length + count, ...(near ? { near: count } : {}) };
}

/** Looks through all samples. */
export function alignedData(samples: Iterable<EncodedSample>): AlignedData {
  let [own, others, longest, studentFactors, teacherFactors] = [0, 0, 1, 1, 1];
  for (const { ids, other } of samples) {
    if (!other) continue;
    own += ids.length;
    others += other.ids.length;
    longest = Math.max(longest, other.ids.length);
    const { groups } = other;
    for (let g = 0; g < groups.length; g += 4) {
      const [a, b, c, d] = groups.subarray(g, g + 4) as unknown as [number, number, number, number];
      if (Math.max(b - a, d - c) > MOST_TOKENS) continue;
      studentFactors = Math.max(studentFactors, b - a - 1);
      teacherFactors = Math.max(teacherFactors, d - c - 1);
    }
  }
  return { longest, ratio: others / Math.max(1, own), studentFactors, teacherFactors };
}
