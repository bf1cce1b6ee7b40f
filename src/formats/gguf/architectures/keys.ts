/**
 * The hyperparameters of a file: its keys that begin with the name of the architecture.
 *
 * @module
 */
import { InputError } from "../../../base/errors.ts";
import type { GgufValue } from "../gguf.ts";
import type { GgufWriteValue } from "../write.ts";

/** What hyperparameters are read from: the header of a file, or of one that is to be written. */
export interface GgufHeader {
  /** The file, for errors. */
  readonly where: string;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly tensors: ReadonlyMap<string, { readonly shape: readonly number[] }>;
  /** The values of tensors about rotary positions. */
  readonly rope: ReadonlyMap<string, readonly number[]>;
}

/** Hyperparameters that change nothing here, whatever they are. */
const INERT = new Set([
  "vocab_size",
  "block_count",
  "tensor_data_layout",
  "rope.scaling.finetuned",
  "rope.scaling.original_context_length",
  "expert_used_count",
  "pooling_type",
]);

/** Values of some with which they change nothing; of all others those are nothing: 0, false, the empty text. */
const NEUTRAL: Readonly<Record<string, readonly GgufValue[]>> = {
  "attention.causal": [true],
  "logit_scale": [0, 1],
  "residual_scale": [0, 1],
  "embedding_scale": [0, 1],
  "rope.scaling.attn_factor": [0, 1],
  "expert_weights_scale": [0, 1],
};
const NOTHING: readonly GgufValue[] = [0, false, ""];

/** Reads hyperparameters, and keeps in mind which. */
export class GgufKeys {
  readonly header: GgufHeader;
  /** The name of the architecture. */
  readonly architecture: string;
  readonly #read = new Set<string>();

  constructor(header: GgufHeader, architecture: string) {
    [this.header, this.architecture] = [header, architecture];
  }

  /** What a hyperparameter holds; it then counts as understood. @param key Without the name of the architecture */
  get(key: string): GgufValue | undefined {
    this.#read.add(key);
    return this.header.metadata.get(`${this.architecture}.${key}`);
  }

  /** A number, or undefined where there is none. */
  optional(key: string): number | undefined {
    return single(this.get(key), `${this.architecture}.${key}`, this.header.where);
  }

  /** A number that must be there. */
  required(key: string): number {
    const value = this.optional(key);
    if (value !== undefined) return value;
    throw this.wrong(key, "is missing");
  }

  /** A number that was written as an f32, as the shortest decimal that gives it: 1e-5 rather than 0.000009999999747378752. */
  decimal(key: string): number | undefined {
    const value = this.optional(key);
    return value === undefined ? undefined : shortestDecimal(value);
  }

  /** True, false or absent. */
  flag(key: string): boolean | undefined {
    const value = this.get(key);
    if (value === undefined || typeof value === "boolean") return value;
    throw this.wrong(key, `is ${value}, neither true nor false`);
  }

  /** A key outside of the architecture's own that holds a number, such as a token. */
  token(key: string): number | undefined {
    return single(this.header.metadata.get(key), key, this.header.where);
  }

  /** Whether the file has a tensor whose name fits. */
  has(name: string | RegExp): boolean {
    if (typeof name === "string") return this.header.tensors.has(name);
    return [...this.header.tensors.keys()].some((tensor) => name.test(tensor));
  }

  /**
   * Requires that nothing else is said that may change what is computed.
   *
   * @throws {InputError} naming the first key that nobody has read, that is not known to be about something else, and that says something
   */
  refuseUnread(): void {
    const before = `${this.architecture}.`;
    for (const [key, value] of this.header.metadata) {
      const own = key.slice(before.length);
      if (!key.startsWith(before) || this.#read.has(own) || INERT.has(own)) continue;
      if ((NEUTRAL[own] ?? NOTHING).includes(value)) continue;
      throw this.wrong(own, `is ${shown(value)}, which is not supported`);
    }
  }

  /** An error about a key. */
  wrong(key: string, what: string): InputError {
    return new InputError(`${this.architecture}.${key} ${what}`, { where: this.header.where });
  }
}

function single(value: GgufValue | undefined, key: string, where: string): number | undefined {
  if (value === undefined || typeof value === "number") return value;
  throw new InputError(`${key} is not a single number`, { where });
}

function shown(value: GgufValue): string {
  return typeof value === "object" ? "a list" : String(value);
}

/** The shortest decimal that is this f32. */
export function shortestDecimal(value: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const rounded = Number(value.toPrecision(digits));
    if (Math.fround(rounded) === Math.fround(value)) return rounded;
  }
  return value;
}

/** Collects hyperparameters to be written. */
export class KeyWriter {
  readonly metadata = new Map<string, GgufWriteValue>();
  readonly #architecture: string;

  constructor(architecture: string) {
    this.#architecture = architecture;
  }

  /** A whole number. */
  count(key: string, value: number): void {
    this.#set(key, { type: "u32", value });
  }

  /** An f32. */
  real(key: string, value: number): void {
    this.#set(key, { type: "f32", value });
  }

  text(key: string, value: string): void {
    this.#set(key, { type: "string", value });
  }

  flag(key: string, value: boolean): void {
    this.#set(key, { type: "bool", value });
  }

  flags(key: string, value: readonly boolean[]): void {
    this.#set(key, { type: "bools", value });
  }

  #set(key: string, value: GgufWriteValue): void {
    this.metadata.set(`${this.#architecture}.${key}`, value);
  }
}
