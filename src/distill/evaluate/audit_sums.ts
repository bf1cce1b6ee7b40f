/**
 * The host's part of an audit of payloads: losses of each token in f64, and what they add up to.
 *
 * @module
 */
import { logSoftmax, referenceRow } from "../../losses/reference.ts";
import { cacheRefusal, type SparseTarget } from "../../losses/sparse_target.ts";
import type { ResolvedLoss } from "../../losses/traced.ts";
import { cacheTemperatures } from "../objective/cache.ts";
import { rowStorage } from "../teacher/payload.ts";
import { type Tail, tailBound } from "./tail_bounds.ts";

/** A payload's cost for one loss. */
export interface PayloadCost {
  /** As a recipe writes it, such as `{topK: 64}`. */
  readonly payload: string;
  /** Of a token that counts. */
  readonly bytesPerToken: number;
  /** How far the loss is off, nats or in its own unit: on average, signed; and at most, absolute. Null where the payload cannot serve it. */
  readonly mean: number | null;
  readonly largest: number | null;
  /** What the weight of the tail allows at most, on average and on one token; null where it tells nothing. */
  readonly bound: { readonly mean: number; readonly largest: number } | null;
}

/** What a loss is, and what each payload makes of it. */
export interface AuditedLoss {
  readonly name: string;
  readonly temperature: number;
  /** Mean over the tokens, from hidden states in f32. */
  readonly value: number;
  readonly payloads: readonly PayloadCost[];
}

/** An audit. */
export interface CacheAudit {
  /** Held-out tokens it was made on. */
  readonly tokens: number;
  readonly losses: readonly AuditedLoss[];
}

/** Logits of some rows: of the student, and of the teacher from hidden states in each precision. */
export interface AuditRows {
  readonly student: Float64Array[];
  readonly f32: Float64Array[];
  readonly bf16: Float64Array[];
  readonly int8: Float64Array[];
}

const HIDDEN = ["bf16", "int8"] as const;

/** Differences of one payload, by loss. */
interface CostSums {
  readonly payload: string;
  readonly bytesPerToken: number;
  /** By the place of the loss. */
  readonly served: readonly boolean[];
  readonly sum: Float64Array;
  readonly largest: Float64Array;
  readonly boundSum: Float64Array;
  readonly boundLargest: Float64Array;
  readonly bounded: boolean[];
}

/** Adds up what each token costs. */
export class AuditSums {
  tokens = 0;
  readonly #terms: readonly ResolvedLoss[];
  readonly #values: Float64Array;
  readonly #hidden: readonly CostSums[];
  readonly #top: readonly (CostSums & { readonly target: SparseTarget })[];

  constructor(
    terms: readonly ResolvedLoss[],
    topK: readonly number[],
    { hiddenSize: width, vocabularySize: vocabulary }: {
      readonly hiddenSize: number;
      readonly vocabularySize: number;
    },
  ) {
    this.#terms = terms;
    this.#values = new Float64Array(terms.length);
    const costs = (
      payload: string,
      bytesPerToken: number,
      serves: (term: ResolvedLoss) => boolean,
    ): CostSums => {
      const zeros = () => new Float64Array(terms.length);
      return {
        ...{ payload, bytesPerToken, served: terms.map(serves), bounded: terms.map(() => false) },
        ...{ sum: zeros(), largest: zeros(), boundSum: zeros(), boundLargest: zeros() },
      };
    };
    this.#hidden = HIDDEN.map((precision) =>
      costs(`{payload: hidden, precision: ${precision}}`, rowStorage({ width, precision }).bytes, () => true)
    );
    this.#top = topK.map((entries) => {
      const target: SparseTarget = { kind: "top-k", entries, temperatures: cacheTemperatures(terms) };
      const { bytes } = rowStorage({ target, precision: "f16", vocabulary });
      const serves = ({ loss, options }: ResolvedLoss) => !cacheRefusal(loss, options, target);
      return { ...costs(`{topK: ${entries}}`, bytes, serves), target };
    });
  }

  add(rows: AuditRows, i: number, label: number): void {
    const student = rows.student[i]!;
    const teacher = rows.f32[i]!;
    const exact = referenceRow(this.#terms, student, teacher, label).values;
    exact.forEach((value, k) => this.#values[k]! += value);
    this.#hidden.forEach((costs, h) => {
      const own = referenceRow(this.#terms, student, rows[HIDDEN[h]!][i]!, label).values;
      own.forEach((value, k) => addCost(costs, k, value - exact[k]!));
    });
    this.#addTop(student, teacher, label, exact);
    this.tokens++;
  }

  #addTop(student: Float64Array, teacher: Float64Array, label: number, exact: readonly number[]): void {
    const order = Uint32Array.from(teacher.keys()).sort((a, b) => teacher[b]! - teacher[a]! || a - b);
    const sizes = this.#top.map(({ target }) => target.entries);
    for (const temperature of new Set(this.#terms.map((term) => term.temperature))) {
      const [p, q] = [teacher, student].map((z) => new OrderedRow(z, order, sizes, temperature));
      for (const [i, costs] of this.#top.entries()) {
        const own = [...this.#terms.keys()].filter((k) =>
          costs.served[k] && this.#terms[k]!.temperature === temperature
        );
        const place = order.subarray(0, sizes[i]).indexOf(label);
        const { values } = referenceRow(
          own.map((k) => this.#terms[k]!),
          q!.buckets(i),
          p!.buckets(i),
          place < 0 ? sizes[i]! : place,
        );
        const tail: Tail = { p: p!.tail(i), q: q!.tail(i), leastKept: p!.leastKept(i), least: q!.least(i) };
        own.forEach((k, n) => {
          addCost(costs, k, values[n]! - exact[k]!);
          addBound(costs, k, tailBound(this.#terms[k]!, tail));
        });
      }
    }
  }

  result(): CacheAudit {
    const { tokens } = this;
    const cost = (costs: CostSums, k: number): PayloadCost => {
      const { payload, bytesPerToken } = costs;
      if (!costs.served[k]) return { payload, bytesPerToken, mean: null, largest: null, bound: null };
      const bound = costs.bounded[k]
        ? { mean: costs.boundSum[k]! / tokens, largest: costs.boundLargest[k]! }
        : null;
      return { payload, bytesPerToken, mean: costs.sum[k]! / tokens, largest: costs.largest[k]!, bound };
    };
    return {
      tokens,
      losses: this.#terms.map(({ name, temperature }, k) => ({
        ...{ name, temperature, value: this.#values[k]! / Math.max(1, tokens) },
        payloads: [...this.#hidden, ...this.#top].map((costs) => cost(costs, k)),
      })),
    };
  }
}

function addCost({ sum, largest }: CostSums, k: number, difference: number): void {
  sum[k]! += difference;
  largest[k] = Math.max(largest[k]!, Math.abs(difference));
}

function addBound(costs: CostSums, k: number, bound: number | undefined): void {
  if (bound === undefined) return;
  costs.bounded[k] = true;
  costs.boundSum[k]! += bound;
  costs.boundLargest[k] = Math.max(costs.boundLargest[k]!, bound);
}

/** A row of logits in some order of its entries, cut after several numbers of them. */
class OrderedRow {
  readonly #z: Float64Array;
  readonly #order: Uint32Array;
  readonly #sizes: readonly number[];
  readonly #temperature: number;
  readonly #logP: Float64Array;
  /** Of each size: the sum of the probabilities of what follows, and the least of them. */
  readonly #sums: number[] = [];
  readonly #least: number[] = [];

  /** @param sizes Rising */
  constructor(z: Float64Array, order: Uint32Array, sizes: readonly number[], temperature: number) {
    [this.#z, this.#order, this.#sizes, this.#temperature] = [z, order, sizes, temperature];
    this.#logP = logSoftmax(z, temperature);
    let [sum, least, end] = [0, Infinity, order.length];
    for (let i = sizes.length - 1; i >= 0; i--) {
      // From the end on, where they are small.
      while (end > sizes[i]!) {
        const p = Math.exp(this.#logP[order[--end]!]!);
        sum += p;
        least = Math.min(least, p);
      }
      [this.#sums[i], this.#least[i]] = [sum, least];
    }
  }

  /** Logits whose softmax at the temperature has the probabilities of the first entries, and in one bucket that of the rest. */
  buckets(i: number): Float64Array {
    const size = this.#sizes[i]!;
    const rest = Math.log(this.#sums[i]!) * this.#temperature;
    // The logarithm of a probability, times the temperature, is a logit as good as any.
    const first = Array.from(this.#order.subarray(0, size), (v) => this.#logP[v]! * this.#temperature);
    return Float64Array.from(size < this.#z.length ? [...first, rest] : first);
  }

  tail(i: number): number {
    return this.#sums[i]!;
  }

  least(i: number): number {
    return this.#least[i]!;
  }

  /** The probability of the last of the first entries. */
  leastKept(i: number): number {
    return Math.exp(this.#logP[this.#order[this.#sizes[i]! - 1]!]!);
  }
}
