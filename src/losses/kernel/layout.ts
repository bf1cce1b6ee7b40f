/**
 * How a row kernel's lanes go over a row: what each reads in a turn, what happens at the row's end.
 *
 * @module
 */
import type { DeviceDescription } from "../../gpu/description.ts";
import { rowThreads } from "../../tensor/row_threads.ts";
import type { RowLossShape } from "../traced.ts";

/** A model of the row, as names in the kernel have it: `q` learns, `p` is the target. */
export type Side = "q" | "p";

export const SIDES: readonly Side[] = ["q", "p"];

/** Turns whose sums are added up before they go into the sum of the lane. */
const BLOCK = 32;

/**
 * Entries from which on a processor's lane handles several vectors in a turn: it saves 5 % of a long row's time, and the software driver ends
 * all loops of a thread after 65,535 turns together. Shorter rows gain nothing by a text that takes half as long again to compile.
 */
export const LONG_ROW = 8192;

/** One pass through the code of a loop. */
export interface Turn {
  /** Vectors of four entries that a lane handles in it. */
  readonly unroll: number;
  /** It may go beyond the row. */
  readonly masked: boolean;
}

/** Prints loops, loads and stores. Every vector holds four entries. */
export class RowLayout {
  /** Lanes of a workgroup, which has one row. */
  readonly lanes: number;
  /** Vectors that a lane handles in one turn of the main loop. */
  readonly unroll: number;
  /** Rows begin at multiples of four entries, so they are read as vec4. */
  readonly vector: boolean;
  /** There is at least one turn of the main loop. */
  readonly whole: boolean;
  /** What the main loop leaves is done a vector at a time, and the last one may go beyond the row. */
  readonly rest: boolean;
  /** How often the loops printed so far read a row of each model. */
  readonly reads: Record<Side, number> = { q: 0, p: 0 };
  readonly #readInLoop = new Set<Side>();

  constructor(shape: RowLossShape, device: DeviceDescription) {
    const { vocabulary, paddedTeacherVocabulary = vocabulary } = shape;
    this.lanes = rowThreads(Math.ceil(vocabulary / 4), device).threads;
    this.unroll = device.family === "subgroup8" && vocabulary >= LONG_ROW ? 4 : 1;
    this.vector = vocabulary % 4 === 0 && paddedTeacherVocabulary % 4 === 0;
    this.whole = vocabulary >= this.span;
    this.rest = vocabulary % this.span !== 0;
  }

  /** Entries that all lanes handle in one turn of the main loop. */
  get span(): number {
    return 4 * this.lanes * this.unroll;
  }

  /** A loop over the row in blocks of turns, then over what is left. */
  loop(
    before: readonly string[],
    turn: (at: Turn) => readonly string[],
    after: readonly string[],
  ): string[] {
    const { unroll, whole, rest } = this;
    const lines: string[] = [];
    this.#readInLoop.clear();
    if (whole) {
      lines.push(
        `for (var block = 0u; block < turns; block += ${BLOCK}u) {`,
        ...before.map((l) => `  ${l}`),
        `  let stop = min(block + ${BLOCK}u, turns);`,
        "  for (var turn = block; turn < stop; turn++) {",
        ...turn({ unroll, masked: false }).map((l) => `    ${l}`),
        "  }",
        ...after.map((l) => `  ${l}`),
        "}",
      );
    }
    if (rest) {
      lines.push(
        "{",
        ...before.map((l) => `  ${l}`),
        `  for (var turn = turns * ${unroll}u; turn < vectors; turn++) {`,
        ...turn({ unroll: 1, masked: true }).map((l) => `    ${l}`),
        "  }",
        ...after.map((l) => `  ${l}`),
        "}",
      );
    }
    for (const side of this.#readInLoop) this.reads[side]++;
    return lines;
  }

  /** Finds the entries `i` of vector `u` of a turn, and `at` where they are read without leaving the row. */
  index({ unroll, masked }: Turn, u: number, suffix: string): string[] {
    const { lanes, vector } = this;
    const first = `(turn * ${unroll}u + ${u}u) * ${lanes}u`;
    if (vector) {
      const lines = [`let i${suffix} = ${first} + lane;`];
      if (masked) lines.push(`let at${suffix} = min(i${suffix}, size.vocabulary / 4u - 1u);`);
      return lines;
    }
    const offsets = `vec4<u32>(0u, ${lanes}u, ${2 * lanes}u, ${3 * lanes}u)`;
    const lines = [`let i${suffix} = vec4<u32>(4u * ${first} + lane) + ${offsets};`];
    if (masked) lines.push(`let at${suffix} = min(i${suffix}, vec4<u32>(size.vocabulary - 1u));`);
    return lines;
  }

  /** Which of the entries `i` belong to the row: one condition, or one for each. */
  inside(suffix: string): string {
    return this.vector ? `i${suffix} < size.vocabulary / 4u` : `i${suffix} < vec4<u32>(size.vocabulary)`;
  }

  /** The four entries' places in the row. */
  entries(suffix: string): string {
    return this.vector ? `vec4<u32>(4u * i${suffix}) + vec4<u32>(0u, 1u, 2u, 3u)` : `i${suffix}`;
  }

  /** `let name = ` four logits; with `fill`, those beyond the row count as minus infinity. */
  load({ masked }: Turn, side: Side, name: string, suffix: string, fill: boolean): string {
    const [buffer, base] = side === "q"
      ? ["student_logits", "student_row"]
      : ["teacher_logits", "teacher_row"];
    const at = masked ? `at${suffix}` : `i${suffix}`;
    this.#readInLoop.add(side);
    let code = this.vector
      ? `${buffer}[${base} + ${at}]`
      : `vec4<f32>(${["x", "y", "z", "w"].map((c) => `${buffer}[${base} + ${at}.${c}]`).join(", ")})`;
    if (fill && masked) code = `select(vec4<f32>(-3.0e38), ${code}, ${this.inside(suffix)})`;
    return `let ${name} = ${code};`;
  }

  /** Writes the gradient of four entries. */
  store({ masked }: Turn, code: string): string[] {
    if (this.vector) {
      const store = `student_logits[student_row + i] = ${code};`;
      return [masked ? `if (${this.inside("")}) { ${store} }` : store];
    }
    return [
      `let slope = ${code};`,
      ...["x", "y", "z", "w"].map((c) => {
        const store = `student_logits[student_row + i.${c}] = slope.${c};`;
        return masked ? `if (i.${c} < size.vocabulary) { ${store} }` : store;
      }),
    ];
  }
}
