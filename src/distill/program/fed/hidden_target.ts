/**
 * A target from stored hidden states: a batch brings what the teacher's head reads, and the head makes logits of it, a chunk of rows at a
 * time. Of the teacher's layers nothing is in the program.
 *
 * @module
 */
import type { Graph, Tensor } from "../../../tensor/graph.ts";
import { matmul } from "../../../tensor/ops/matmul.ts";
import { packedWords, unpackRows } from "../../../tensor/ops/unpack_rows.ts";
import { rows } from "../../../tensor/ops/views.ts";
import type { Model } from "../../inputs/models.ts";
import type { DenseTarget } from "../../objective/chunked_loss.ts";
import type { HiddenPrecision } from "../../recipe/recipe.ts";
import type { TargetFeed } from "./teacher_rows.ts";
import { traceHead } from "../traced_model.ts";

/** Names of the inputs of a training program. */
const HIDDEN_INPUTS = { rows: "cached.hidden", scales: "cached.scales" } as const;

/** An input of one of several teachers, by what it is called where there is one. */
export function inputOf(teacher: string, input: string): string {
  return `${teacher}: ${input}`;
}

/** Bits of a packed value. */
const BITS = { bf16: 16, int8: 8 } as const;

/** Arrays for the inputs of a program with so many positions. */
export interface HiddenArrays {
  readonly inputs: TargetFeed["inputs"];
  readonly rows: Float32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>;
  /** Of int8. */
  readonly scales?: Float32Array<ArrayBuffer>;
}

/** The inputs of {@linkcode hiddenTarget}; no position has a row yet. */
export function hiddenArrays(positions: number, width: number, precision: HiddenPrecision): HiddenArrays {
  const rows = precision === "f32"
    ? new Float32Array(positions * width)
    : new Uint32Array(positions * packedWords(width, BITS[precision]));
  const scales = precision === "int8" ? new Float32Array(positions) : undefined;
  const inputs = new Map<string, Float32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>>([
    [HIDDEN_INPUTS.rows, rows],
    ...(scales ? [[HIDDEN_INPUTS.scales, scales] as const] : []),
  ]);
  return { inputs, rows, ...(scales ? { scales } : {}) };
}

/**
 * The logits that a teacher's head makes of stored hidden states.
 *
 * @param tokens T, positions of a micro-batch
 * @param length Rows of the rotary table, as of the other models
 * @param name What the teacher is called in the block, and what its inputs begin with where it is one of several
 */
export function hiddenTarget(
  graph: Graph,
  teacher: Model,
  { tokens, positions: length }: { readonly tokens: number; readonly positions: number },
  precision: HiddenPrecision,
  name?: string,
): DenseTarget {
  const { hiddenSize } = teacher.config;
  const head = traceHead(graph, name ?? "teacher", teacher, tokens, { length });
  const at = (input: string) => (name === undefined ? input : inputOf(name, input));
  const packed = precision === "f32"
    ? graph.input(at(HIDDEN_INPUTS.rows), [tokens, hiddenSize], "f32")
    : graph.input(at(HIDDEN_INPUTS.rows), [tokens, packedWords(hiddenSize, BITS[precision])], "u32");
  const scales = precision === "int8" ? graph.input(at(HIDDEN_INPUTS.scales), [tokens, 1], "f32") : undefined;
  const hidden = (first: number, count: number): Tensor => {
    const part = rows(packed, first, count);
    if (precision === "f32") return part;
    return unpackRows(part, hiddenSize, scales && rows(scales, first, count));
  };
  return {
    logits: (first, count) => {
      const x = hidden(first, count);
      return head.plain ? matmul("NT", x, head.headWeight()) : head.logits(x);
    },
  };
}
