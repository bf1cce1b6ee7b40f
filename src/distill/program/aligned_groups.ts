/**
 * A teacher with a tokenizer of its own in the training program: its stream beside the student's, and the losses over groups of tokens.
 *
 * A micro-batch holds the same samples for both models, each in its own tokens. The teacher's stream has as many tokens as the data need.
 *
 * @module
 */
import type { Executable } from "../../tensor/executable.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { type PackedBatch, packOther } from "../../text/packing.ts";
import { chunkedLoss } from "../objective/chunked_loss.ts";
import { type GroupSizes, placeGroups } from "../objective/groups/places.ts";
import { groupLoss, type GroupStream } from "../objective/groups/rows.ts";
import type { GroupPass } from "../objective/groups/terms.ts";
import { lossSums } from "../objective/loss_sums.ts";
import type { LossSet } from "../objective/loss_sets.ts";
import type { Objective } from "../objective/objective.ts";
import type { GroupRows } from "../../losses/group_contract.ts";
import type { Side } from "./traced_model.ts";
import { writeSamples } from "./fed/stream.ts";

/** Sizes that are planned once: they decide the program. */
export interface AlignedSizes {
  /** Tokens of the teacher's stream. */
  readonly tokens: number;
  /** Rows of the teacher's head at a time; divides the tokens. */
  readonly chunkRows: number;
  /** Groups of a micro-batch, at the most, and how many go through the heads at a time. */
  readonly groups: number;
  readonly groupRows: number;
}

/** How such a teacher takes part in a program. */
export interface AlignedProgram extends AlignedSizes {
  /** Rows of the teacher's rotary table. */
  readonly positions: number;
  readonly studentFactors: number;
  readonly teacherFactors: number;
  /** i32 [V + W]; see `AlignedTeacher`. */
  readonly match: Int32Array<ArrayBuffer>;
}

/** Names of inputs. */
export const ALIGNED = {
  /** Of the teacher's stream. */
  prefix: "teacher.",
  labels: "teacher.labels",
  match: "groups.match",
  counted: (rows: GroupRows) => `groups.${rows}.counted`,
  part: (rows: GroupRows, side: "student" | "teacher", part: string) => `groups.${rows}.${side}.${part}`,
} as const;

/** The sizes of what groups go through. */
function groupSizes(tokens: number, aligned: AlignedProgram): GroupSizes {
  const { groups, studentFactors, teacherFactors } = aligned;
  return { groups, student: tokens, teacher: aligned.tokens, studentFactors, teacherFactors };
}

/** What a pass is traced in. */
interface GroupBlock {
  /** Of the student's stream. */
  readonly tokens: number;
  readonly chunkRows: number;
  readonly aligned: AlignedProgram;
}

/** Traces a loss over groups and adds its sum into element `first` of a state; returns the weighted loss of each group in training. */
export function traceGroups(
  graph: Graph,
  sides: { readonly student: Side; readonly teacher: Side },
  { term, rows, shape, factors }: GroupPass,
  { state, first }: { readonly state: Tensor; readonly first: number },
  { tokens, chunkRows, aligned }: GroupBlock,
  training: boolean,
): Tensor | undefined {
  const sizes = groupSizes(tokens, aligned);
  const stream = (side: "student" | "teacher"): GroupStream => {
    const input = (part: string, shape: readonly number[]) =>
      graph.input(ALIGNED.part(rows, side, part), shape, "i32");
    const each = side === "student" ? sizes.studentFactors : sizes.teacherFactors;
    return {
      base: input("base", [sizes.groups, 1]),
      baseOf: input("baseOf", [sizes[side], 1]),
      factors: input("factors", [sizes.groups, each]),
      factorOf: input("factorOf", [sizes[side], 1]),
      tokens: input("tokens", [sizes[side]]),
    };
  };
  const { vocabulary, teacherVocabulary } = shape;
  const { values, valueCount, weighted } = groupLoss(graph, {
    ...{
      learner: sides.student,
      target: sides.teacher,
      student: stream("student"),
      teacher: stream("teacher"),
    },
    counted: graph.input(ALIGNED.counted(rows), [sizes.groups], "i32"),
    match: term.loss.needsMatch
      ? graph.input(ALIGNED.match, [vocabulary + teacherVocabulary], "i32")
      : undefined,
    ...{ term, shape },
    crossEntropy: {
      student: factors.student.rowLosses(graph),
      teacher: factors.teacher.rowLosses(graph),
    },
    chunkRows: { groups: aligned.groupRows, student: chunkRows, teacher: aligned.chunkRows },
    gradient: training,
  });
  // The loss itself is the first of the values.
  lossSums(values, state, graph.scalar("accumulate"), { first, count: 1, of: valueCount });
  return weighted;
}

/** Traces what is measured of the teacher over its own tokens. */
export function traceAlignedTeacher(
  graph: Graph,
  teacher: Side,
  set: LossSet,
  state: Tensor,
  objective: Objective,
  { tokens, chunkRows }: AlignedSizes,
  vocabulary: number,
): void {
  const { values } = chunkedLoss(graph, {
    learner: teacher,
    labels: graph.input(ALIGNED.labels, [tokens], "i32"),
    losses: { ...objective.rowLosses(set, graph, vocabulary), tokenMasks: false },
    ...{ chunkRows, gradient: false },
  });
  lossSums(values, state, graph.scalar("accumulate"));
}

/** Writes the teacher's side of batches into a program, and where their groups lie. */
export class AlignedInputs {
  readonly #executable: Executable;
  readonly #sizes: GroupSizes;
  readonly #rows: readonly GroupRows[];

  constructor(
    executable: Executable,
    tokens: number,
    aligned: AlignedProgram,
    groups: readonly GroupPass[],
  ) {
    this.#executable = executable;
    this.#sizes = groupSizes(tokens, aligned);
    this.#rows = [...new Set(groups.map(({ rows }) => rows))];
    if (executable.plan.storages.has(ALIGNED.match)) executable.write(ALIGNED.match, aligned.match);
  }

  /** A batch of which both sides fit. */
  write({ members }: PackedBatch): void {
    this.#writeTeacher(packOther(members, this.#sizes.teacher));
    for (const rows of this.#rows) {
      const { counted, ...sides } = placeGroups(members, rows, this.#sizes);
      this.#write(ALIGNED.counted(rows), counted);
      for (const side of ["student", "teacher"] as const) {
        for (const [part, data] of Object.entries(sides[side])) {
          this.#write(ALIGNED.part(rows, side, part), data);
        }
      }
    }
  }

  /** A batch of the teacher's samples alone. */
  writeTeacher(batch: PackedBatch): void {
    this.#writeTeacher(batch);
    this.#write(ALIGNED.labels, batch.label);
  }

  #writeTeacher(batch: PackedBatch): void {
    writeSamples(this.#executable, {
      ...{ tokens: batch.tokens, positions: batch.position, start: batch.kvStart, end: batch.kvEnd },
    }, ALIGNED.prefix);
  }

  #write(name: string, data: Int32Array): void {
    if (this.#executable.plan.storages.has(name)) this.#executable.write(name, data);
  }
}
