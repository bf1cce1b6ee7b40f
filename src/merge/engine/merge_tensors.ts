/**
 * Carrying out a plan: tensors are read, merged and handed on one after another, in pieces where the method allows it.
 *
 * @module
 */
import { LimbeckError } from "../../base/errors.ts";
import type { TensorData } from "../../formats/model_source.ts";
import type { LinearAlgebra, MergeInput } from "../../registry/contract.ts";
import type { Parents } from "../parents/parents.ts";
import { readRows } from "../parents/read_pieces.ts";
import { uniformDraws } from "./draws.ts";
import { type MergePlan, passesOf, type PlannedTensor } from "./plan.ts";

/** Entries of a piece. */
const PIECE = 1 << 21;

/** Uniform numbers in [0, 1) for entries of a parent's tensor. */
export type Draw = (tensor: string, parent: number, first: number, count: number) => Float32Array;

/** How a plan is carried out. */
export interface MergeWork {
  readonly linalg: LinearAlgebra;
  /** Called with the bytes of parents and result that were read or merged since the last call. */
  readonly onBytes?: (bytes: number) => void;
  readonly signal?: AbortSignal | undefined;
  /** Where random numbers come from; by default from the recipe's seed. */
  readonly draw?: Draw | undefined;
  /** Entries of a piece. */
  readonly piece?: number | undefined;
}

/** What a method is given of one piece of a tensor, and how many rows it has. */
interface Piece {
  readonly input: MergeInput;
  readonly rows: number;
}

/** Merges the tensors of a plan by name. Methods that look at all tensors first do so when it is made. */
export class TensorMerger {
  readonly #plan: MergePlan;
  readonly #parents: Parents;
  readonly #work: MergeWork;
  readonly #tensors: ReadonlyMap<string, PlannedTensor>;
  readonly #draw: Draw;
  #survey: unknown;

  private constructor(plan: MergePlan, parents: Parents, work: MergeWork) {
    this.#plan = plan;
    this.#parents = parents;
    this.#work = work;
    this.#tensors = new Map(plan.tensors.map((tensor) => [tensor.name, tensor]));
    this.#draw = work.draw ??
      ((tensor, parent, first, count) => uniformDraws(plan.recipe.seed, tensor, parent, first, count));
  }

  /** @throws {InputError} as {@linkcode TensorMerger.merge} */
  static async begin(plan: MergePlan, parents: Parents, work: MergeWork): Promise<TensorMerger> {
    const merger = new TensorMerger(plan, parents, work);
    await merger.#lookAtAll();
    return merger;
  }

  /**
   * A tensor of the result, in pieces of rows, f32.
   *
   * @throws {InputError} if a value of a parent is NaN or infinite, naming model and tensor
   * @throws {LimbeckError} if the method gives something else than as many finite numbers
   */
  async *merge(name: string): AsyncGenerator<TensorData> {
    const tensor = this.#tensors.get(name)!;
    const [, ...row] = tensor.shape;
    for await (const { input, rows } of this.#pieces(tensor)) {
      const merged = await this.#plan.method.merge(input);
      const expected = rows * elements(row);
      if (!(merged instanceof Float32Array) || merged.length !== expected) {
        throw new LimbeckError(
          `${this.#plan.method.id} gave ${merged?.length} values of ${name}, not ${expected}`,
        );
      }
      yield { dtype: "f32", shape: [rows, ...row], data: merged as Float32Array<ArrayBuffer> };
    }
  }

  async #lookAtAll(): Promise<void> {
    const { method, tensors } = this.#plan;
    const passes = passesOf(this.#plan);
    if (passes === 0) return;
    const memory = method.survey!.begin(tensors[0]!.parents.length);
    for (let pass = 0; pass < passes; pass++) {
      for (const tensor of tensors) {
        for await (const { input } of this.#pieces(tensor)) method.survey!.see(memory, input, pass);
      }
    }
    this.#survey = memory;
  }

  /** The pieces of a tensor; the next one is read while one is worked on. */
  async *#pieces(tensor: PlannedTensor): AsyncGenerator<Piece> {
    const { method } = this.#plan;
    const [rows = 1, ...row] = tensor.shape;
    const unit = typeof method.unit === "function" ? method.unit(tensor.options) : method.unit;
    const step = unit === "tensor"
      ? rows
      : Math.max(1, Math.floor((this.#work.piece ?? PIECE) / elements(row)));
    let next = this.#read(tensor, 0, Math.min(step, rows));
    for (let first = 0; first < rows; first += step) {
      this.#work.signal?.throwIfAborted();
      const piece = await next;
      const after = first + step;
      if (after < rows) {
        next = this.#read(tensor, after, Math.min(step, rows - after));
        // It is awaited in the next turn, if there is one; until then its failure is nobody's.
        next.catch(() => {});
      }
      yield piece;
    }
  }

  async #read(tensor: PlannedTensor, first: number, rows: number): Promise<Piece> {
    const { name, shape, options, base, parents, ofTokens } = tensor;
    const { recipe, vocabulary } = this.#plan;
    const reader = { parents: this.#parents, vocabulary, dtype: recipe.dtype };
    const read = (input: { parent: string; name: string }) => readRows(reader, input, first, rows, ofTokens);
    const [zero, ...values] = await Promise.all([base ? read(base) : undefined, ...parents.map(read)]);
    const width = elements(shape.slice(1));
    this.#work.onBytes?.(rows * width * 4 * (parents.length + (base ? 1 : 0)));
    return {
      rows,
      input: {
        name,
        shape,
        ...(zero ? { base: zero } : {}),
        parents: parents.map(({ options }, i) => ({ values: values[i]!, options: { ...options } })),
        options: { ...options },
        random: (parent) => this.#draw(name, parent, first * width, rows * width),
        linalg: this.#work.linalg,
        ...(this.#survey === undefined ? {} : { survey: this.#survey }),
      },
    };
  }
}

function elements(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}
