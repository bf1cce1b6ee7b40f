/**
 * A loss over groups of tokens, compiled into a kernel.
 *
 * @module
 */
import type { DeviceDescription } from "../gpu/description.ts";
import type { StepScalar } from "../tensor/graph.ts";
import type { SizeWord } from "../tensor/op.ts";
import type { GroupLoss } from "./group_contract.ts";
import { type GroupKernelShape, printGroupKernel } from "./kernel/group_kernel.ts";
import type { RowRange } from "./traced.ts";

/** A loss over groups of an objective, its options checked. */
export interface ResolvedGroupLoss {
  readonly loss: GroupLoss;
  /** Options as its schema gives them, defaults included. */
  readonly options: Readonly<Record<string, unknown>>;
  /** Unique in the objective; step scalars are called `NAME.weight` and `NAME.temperature`. */
  readonly name: string;
  readonly weight: number;
  /** Divides the logits of both models. */
  readonly temperature: number;
  /** Which of a batch's counts it is the mean over. */
  readonly tokenMask?: number;
}

/** What a kernel is made for. */
export interface GroupLossShape extends GroupKernelShape {
  /** How many tokens the two vocabularies have in common. */
  readonly matched: number;
}

/** A kernel over rows of two vocabularies, one group a workgroup. */
export interface GroupLossKernel {
  /** For profiles. */
  readonly label: string;
  /**
   * Bindings of group 0: labels i32 [R], -100 where a row is no group; log scales of the learner f32 [R] and of the target f32 [R]; where the
   * loss needs it the tokens that are the same, i32 [V + W]; target logits f32 [R, W]; learner logits f32 [R, V], overwritten with the
   * gradient of weight * D unless compiled without; values f32 [R], and with a gradient slopes f32 [R] after them; where `memoryWords` is not 0
   * u32 [groups, memoryWords].
   */
  readonly wgsl: string;
  /** 2 with a gradient: value and slope; else 1. */
  readonly valueCount: number;
  readonly memoryWords: number;
  /** Words of the size struct for R rows, of which a dispatch does those from `first` to before `end`. */
  size(rows: number, scalar: (name: string) => StepScalar, part?: RowRange): SizeWord[];
  groups(rows: number): number;
}

/** Compiles a loss over groups. @param options.gradient false: values only, the learner's logits stay as they are */
export function compileGroupLoss(
  { loss, options, name }: Pick<ResolvedGroupLoss, "loss" | "options" | "name">,
  shape: GroupLossShape,
  device: DeviceDescription,
  { gradient = true }: { gradient?: boolean } = {},
): GroupLossKernel {
  const { vocabulary, teacherVocabulary, matched } = shape;
  return {
    label: `groupLoss ${loss.id}${gradient ? "" : " values"}`,
    wgsl: printGroupKernel(loss, options, device, gradient),
    valueCount: gradient ? 2 : 1,
    memoryWords: (loss.memory?.perEntry ?? 0) * Math.max(vocabulary, teacherVocabulary),
    size: (rows, scalar, { first, end } = { first: 0, end: rows }) => [
      ...[end, first, rows, vocabulary, teacherVocabulary, matched],
      scalar(`${name}.weight`),
      scalar(`${name}.temperature`),
    ],
    groups: (rows) => rows,
  };
}
