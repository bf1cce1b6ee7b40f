/**
 * Room behind whatever a kernel binds, within reach of its binding: what is read there are numbers that are none, and what is written there
 * shows. Behind the end of a binding a device may do as it likes, and a software driver reads zeros and drops what is written.
 *
 * @module
 */
import type { DeviceDescription } from "../../src/gpu/description.ts";
import type { Executable } from "../../src/tensor/executable.ts";
import { byteLength, elementCount, type Graph, type Tensor } from "../../src/tensor/graph.ts";
import { bytesOf } from "../../src/tensor/weight_storage.ts";
import { rootOf, type Window } from "../../src/tensor/op.ts";
import type { Value } from "./harness.ts";

/** A number that is none. */
const NAN = 0x7fc00000;

/** About 0.37, behind what kernels write: added to it, anything shows. */
const UNTOUCHED = 0x3ebedead;

/** Memory twice as large as a tensor's, in its place. */
interface Guarded {
  readonly name: string;
  /** Words of the tensor itself, and of it and the room behind. */
  readonly own: number;
  readonly words: number;
  readonly tensor: Tensor;
}

/** Puts larger memory in the place of tensors that kernels bind. */
export class Guards {
  readonly #graph: Graph;
  readonly #device: DeviceDescription;
  readonly #of = new Map<Tensor, Guarded>();
  readonly #values: ReadonlyMap<string, Value>;

  /** @param values What storages of these names hold */
  constructor(graph: Graph, device: DeviceDescription, values: ReadonlyMap<string, Value>) {
    [this.#graph, this.#device, this.#values] = [graph, device, values];
  }

  /** What a kernel binds instead: as much more as there is, or as a binding may have. */
  widened(t: Tensor | Window): Window {
    const [tensor, within] = "byteOffset" in t ? [t.tensor, t.byteOffset] : [t, 0];
    const { root, byteOffset } = rootOf(tensor);
    const { tensor: larger, words } = this.#guard(root);
    const most = Math.floor(this.#device.maxBindingSize / 16) * 16;
    const at = byteOffset + within;
    return { tensor: larger, byteOffset: at, byteLength: Math.min(4 * words - at, most) };
  }

  #guard(root: Tensor): Guarded {
    let guarded = this.#of.get(root);
    if (!guarded) {
      const own = Math.ceil(bytesOf(root.dtype, elementCount(root.shape)) / 4);
      const { kind = "state", name = `${this.#of.size}` } = root.storage ?? {};
      const shape = [2 * elementCount(root.shape)];
      const storage = {
        kind,
        name: `${name}, with room behind it`,
        shape,
        dtype: root.dtype,
        category: "test",
      };
      const tensor = this.#graph.use(storage);
      guarded = { name: storage.name, own, words: byteLength(tensor) / 4, tensor };
      this.#of.set(root, guarded);
    }
    return guarded;
  }

  /** Where a tensor's numbers are, if anywhere else than in its own memory. */
  nameOf(t: Tensor): string | undefined {
    return this.#of.get(rootOf(t).root)?.name;
  }

  /** Memory that kernels may write, and into whose room behind they must not. */
  get written(): readonly Guarded[] {
    return [...this.#of].filter(([root]) => mayBeWritten(root)).map(([, guarded]) => guarded);
  }

  /** Fills all that is bound: with the values of storages, and for the rest with numbers that are none. */
  fill(executable: Executable): void {
    for (const [root, { name, own, words }] of this.#of) {
      const bits = new Uint32Array(words).fill(NAN, 0, own).fill(mayBeWritten(root) ? UNTOUCHED : NAN, own);
      const value = root.storage && this.#values.get(root.storage.name);
      if (value) {
        const { data } = value;
        new Uint8Array(bits.buffer).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
        // Whole numbers behind the end look like those before it.
        if (root.dtype === "i32") bits.copyWithin(own, 0, words - own);
      }
      executable.write(name, bits);
    }
  }
}

function mayBeWritten(root: Tensor): boolean {
  return !root.storage || root.storage.kind === "state";
}

/** Whether nothing was written behind a tensor's own words. */
export function isUntouched(words: Uint32Array, own: number): boolean {
  for (let i = own; i < words.length; i++) if (words[i] !== UNTOUCHED) return false;
  return true;
}
