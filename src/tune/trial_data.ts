/**
 * What kernels are tried on: numbers that look random and are always the same.
 *
 * @module
 */
import { uniformNumbers } from "../base/random.ts";
import { BUFFER_USAGE } from "../gpu/buffer_usage.ts";
import type { Gpu, GpuBuffer } from "../gpu/device.ts";
import type { Executable } from "../tensor/executable.ts";
import type { Storage, TrialInputs } from "../tensor/graph.ts";
import type { Plan } from "../tensor/plan.ts";
import { byteLength } from "../tensor/weight_storage.ts";

/** Words that are made; they are used over and over. A prime, so that they fall differently into every row. */
const WORDS = 1_000_003;

const SEED = 15;

/** Values for the storages of trials. */
export class TrialData {
  readonly #uniform = uniformNumbers(0, WORDS, [0, 0, 0], [SEED, 0]);
  readonly #byKind = new Map<string, Float32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>>();

  /** The buffers of a plan's weights, filled: trials of one choice share them. */
  async weights(gpu: Gpu, plan: Plan): Promise<Map<string, GpuBuffer>> {
    const made = new Map<string, GpuBuffer>();
    try {
      for (const { storage, bytes } of plan.buffers) {
        if (storage?.kind !== "weight") continue;
        const buffer = await gpu.allocating(
          "a trial",
          () => gpu.createBuffer(bytes, BUFFER_USAGE.storage, storage.name),
        );
        made.set(storage.name, buffer);
        const words = this.#words(storage);
        for (let at = 0; at < buffer.size; at += words.byteLength) {
          const length = Math.min(words.byteLength, buffer.size - at);
          await gpu.upload(buffer, at, new Uint8Array(words.buffer, 0, length));
        }
      }
      return made;
    } catch (error) {
      made.forEach((buffer) => buffer.destroy());
      throw error;
    }
  }

  /** Fills inputs and states, with what is given of some. */
  fill(executable: Executable, given: TrialInputs): void {
    for (const storage of executable.plan.storages.values()) {
      const { kind, name, dtype } = storage;
      // It is bound where a kernel has nothing to read.
      if (kind === "weight" || name === "nothing") continue;
      const values = given[name];
      if (values) executable.write(name, values);
      // Integers stand for places: zero is one everywhere.
      else if (dtype !== "i32" && dtype !== "u32") {
        executable.write(name, repeated(this.#words(storage), byteLength(storage) / 4));
      }
    }
  }

  /**
   * Words that stand for numbers which nothing overflows: between -1 and 1 in f32, from 0 to 1 where kernels keep sums in them, and in 16 bits, as
   * values or as the scales of blocks, some that are small in every one of these types.
   */
  #words({ kind, dtype }: Storage): Float32Array<ArrayBuffer> | Uint32Array<ArrayBuffer> {
    const type = dtype === "f32" ? kind === "state" ? "sums" : "f32" : "halves";
    const known = this.#byKind.get(type);
    if (known) return known;
    const made = type === "halves"
      // All bits of a word depend on the 24 of a number.
      ? Uint32Array.from(this.#uniform, (u) => Math.imul(u * 2 ** 24, 0x9e3779b1) & 0x83ff83ff | 0x2c002c00)
      : Float32Array.from(this.#uniform, (u) => type === "sums" ? u : 2 * u - 1);
    this.#byKind.set(type, made);
    return made;
  }
}

function repeated<T extends Float32Array | Uint32Array>(words: T, count: number): T {
  if (count <= words.length) return words.subarray(0, count) as T;
  const all = words instanceof Float32Array ? new Float32Array(count) : new Uint32Array(count);
  for (let at = 0; at < count; at += words.length) all.set(words.subarray(0, count - at), at);
  return all as T;
}
