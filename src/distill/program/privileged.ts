/**
 * A teacher that is told more than the student, in the training program: a stream of its own, whose rows are gathered so that each stands
 * beside the student's row that predicts the same token.
 *
 * A micro-batch holds the same samples for both. The teacher's stream has room for the privileged tokens beside all of the student's, so that
 * it holds whatever stands in the place of samples too.
 *
 * @module
 */
import type { Executable } from "../../tensor/executable.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { gatherRows } from "../../tensor/ops/cache.ts";
import type { EncodedSample } from "../../text/encode.ts";
import { packBatch, type PackedBatch } from "../../text/packing.ts";
import { privilegedIds } from "../../text/privileged.ts";
import { writeSamples } from "./fed/stream.ts";

/** How such a teacher takes part in a program. */
export interface PrivilegedProgram {
  /** Tokens of the teacher's stream. */
  readonly tokens: number;
  /** Rows of the teacher's rotary table. */
  readonly positions: number;
}

/** Names of inputs. */
export const PRIVILEGED = {
  /** Of the teacher's stream. */
  prefix: "teacher.",
  /** i32 [T]: the teacher's row beside each of the student's, or -1. */
  rows: "teacher.rows",
} as const;

/**
 * The teacher's rows beside the student's.
 *
 * @param hidden f32, a row for each token of the teacher's stream
 * @returns f32 [T, H]; zeros where there is no token to predict
 */
export function besideStudent(graph: Graph, hidden: Tensor, tokens: number): Tensor {
  return gatherRows(hidden, graph.input(PRIVILEGED.rows, [tokens], "i32"));
}

/**
 * Which of the teacher's rows predicts the token that each of the student's predicts.
 *
 * @param members Samples that lie in both streams back to back
 * @param tokens Of the student's stream
 * @returns i32 [T]; -1 where no token is predicted
 */
export function rowsBeside(members: readonly EncodedSample[], tokens: number): Int32Array {
  const rows = new Int32Array(tokens).fill(-1);
  let [start, otherStart] = [0, 0];
  for (const { ids, privileged } of members) {
    const { at, ids: { length: more } } = privileged ?? { at: 0, ids: [] };
    // Row i - 1 predicts token i. The last token put in predicts the one after it.
    for (let i = 1; i < ids.length; i++) rows[start + i - 1] = otherStart + i - 1 + (i >= at ? more : 0);
    start += ids.length;
    otherStart += ids.length + more;
  }
  return rows;
}

/** Writes the teacher's side of a batch into a program, where it has one. */
export function writePrivileged(
  executable: Executable,
  { members, tokens }: PackedBatch,
  program: PrivilegedProgram,
): void {
  const told = members.map(({ ids, supervised, source, privileged }): EncodedSample => {
    if (!privileged) return { ids, supervised, source };
    const all = privilegedIds(ids, privileged);
    // Nothing is learnt of this stream.
    return { ids: all, supervised: new Uint8Array(all.length), source };
  });
  const batch = packBatch(told, program.tokens);
  writeSamples(executable, {
    ...{ tokens: batch.tokens, positions: batch.position, start: batch.kvStart, end: batch.kvEnd },
  }, PRIVILEGED.prefix);
  executable.write(PRIVILEGED.rows, rowsBeside(members, tokens.length));
}
