/**
 * Kernel launches with everything fixed but the GPU objects: what each binds, how, and its size words.
 *
 * @module
 */
import { joinBindings, parseBindings } from "../gpu/bindings.ts";
import type { DeviceDescription } from "../gpu/description.ts";
import { DeviceError, ShapeError } from "../base/errors.ts";
import { type Node, show, type Tensor } from "./graph.ts";
import { alone, join, type Launch } from "./join.ts";
import { type Dispatch, MOST_TOGETHER, type SizeWord, type Window } from "./op.ts";
import { isSameRange, overlaps, type Range } from "./range.ts";

/** A kernel launch with everything fixed but the GPU objects. */
export interface PlannedDispatch {
  readonly kernel: string;
  readonly path: string;
  /** The layer that it belongs to, if any: what a block can be run without. */
  readonly layer: string | undefined;
  readonly wgsl: string;
  readonly bindings: readonly Range[];
  /** Bindings declared `read` that must be `read_write`; see `accessVariant`. */
  readonly writable: ReadonlySet<number>;
  /**
   * Bindings that a software device declares `read_write`: those that must be, and all of buffers with floats only, of which no two overlap.
   * Which of them share a buffer with what is written differs from use to use, and each set would be a text of its own to compile, which
   * takes such a device longer than to run most kernels, while it reads memory one way. Not those of integers: to Tint, what is read from a
   * writable binding differs from thread to thread, and integers say how far threads go together.
   */
  readonly writableTogether: ReadonlySet<number>;
  /** Byte offset of its size words in the uniform buffer. */
  readonly sizeOffset: number;
  /** Bytes of them that it binds. */
  readonly sizeBytes: number;
  readonly groups: readonly [number, number, number];
  readonly flops: number;
  /** Bytes of all bindings: an upper bound of what it moves from and to memory once. */
  readonly bytes: number;
  /** Bytes that its tiling moves between memory and the kernel: those of all bindings where the op says no other number. */
  readonly traffic: number;
}

/** Size structs of all dispatches, equal ones stored once. */
export class SizeWords {
  readonly #chunks: Uint32Array[] = [];
  readonly #offsetOf = new Map<string, number>();

  /**
   * @param least So many words are bound at least
   * @returns Where they begin, and how many are bound, in bytes
   */
  add(words: readonly SizeWord[], least: number): { sizeOffset: number; sizeBytes: number } {
    const padded = new Uint32Array(Math.ceil(Math.max(words.length, least) / 64) * 64);
    const floats = new Float32Array(padded.buffer);
    words.forEach((word, i) => {
      if (typeof word === "number") padded[i] = word;
      else if ("f32" in word) floats[i] = word.f32;
      else padded[i] = word.index;
    });
    const key = padded.join();
    let offset = this.#offsetOf.get(key);
    if (offset === undefined) {
      offset = this.#chunks.reduce((sum, c) => sum + c.byteLength, 0);
      this.#chunks.push(padded);
      this.#offsetOf.set(key, offset);
    }
    return { sizeOffset: offset, sizeBytes: padded.byteLength };
  }

  words(): Uint32Array {
    const all = new Uint32Array(this.#chunks.reduce((sum, c) => sum + c.length, 0));
    let at = 0;
    for (const chunk of this.#chunks) {
      all.set(chunk, at);
      at += chunk.length;
    }
    return all;
  }
}

/**
 * Plans launches that need nothing of each other: as few as can be.
 *
 * @param nodes Whose launches they are
 * @throws {DeviceError} if what one binds does not fit a binding of the device, or is too much
 */
export function planLaunches(
  dispatches: readonly Dispatch[],
  nodes: readonly Node[],
  range: (t: Tensor | Window) => Range,
  sizes: SizeWords,
  device: DeviceDescription,
): PlannedDispatch[] {
  const groups: { members: Launch[]; joined: Launch; node: Node }[] = [];
  dispatches.forEach((d, i) => {
    const launch = alone(d, d.tensors.map(range));
    for (const group of groups) {
      const joined = join([...group.members, launch], device);
      if (!joined) continue;
      group.members.push(launch);
      group.joined = joined;
      return;
    }
    groups.push({ members: [launch], joined: launch, node: nodes[i]! });
  });
  return groups.map(({ joined, node }) => planLaunch(joined, node, sizes, device));
}

function planLaunch(
  { dispatch, bindings, bytes }: Launch,
  node: Node,
  sizes: SizeWords,
  device: DeviceDescription,
): PlannedDispatch {
  const declared = parseBindings(dispatch.wgsl).filter((b) => b.group === 0).sort((a, b) =>
    a.binding - b.binding
  );
  const where = `kernel ${dispatch.kernel} at ${node.path}`;
  if (declared.length !== dispatch.tensors.length) {
    throw new ShapeError(
      `${where} declares ${declared.length} storage bindings, ${dispatch.tensors.length} tensors are given`,
    );
  }
  if (declared.length > device.maxStorageBuffers) {
    throw new DeviceError(
      `${where} binds ${declared.length} buffers; this device allows ${device.maxStorageBuffers}`,
    );
  }
  bindings.forEach((b, i) => {
    if (b.bytes > device.maxBindingSize) {
      const t = dispatch.tensors[i]!;
      throw new DeviceError(
        `${where}: ${
          show("byteOffset" in t ? t.tensor : t)
        } needs a binding of ${b.bytes} bytes; this device allows ${device.maxBindingSize}`,
        {
          hint:
            "Lower train.tokensPerMicroBatch or train.headChunk; a tensor of student.train that is so large " +
            "cannot be trained on this device.",
        },
      );
    }
    if (b.offset % device.offsetAlignment !== 0) {
      throw new ShapeError(
        `${where}: binding ${i} begins at byte ${b.offset}, which is not a multiple of ${device.offsetAlignment}`,
      );
    }
  });
  const written = new Set<number>();
  declared.forEach((d, i) => d.kind === "read_write" && written.add(bindings[i]!.buffer));
  const writable = new Set<number>();
  declared.forEach((d, i) =>
    d.kind === "read" && written.has(bindings[i]!.buffer) && writable.add(d.binding)
  );
  let { wgsl } = dispatch;
  for (const twin of writable) {
    const of = [...writable].find((other) => other < twin && isSameRange(bindings[other]!, bindings[twin]!));
    const joined = of === undefined ? undefined : joinBindings(wgsl, twin, of);
    if (joined === undefined) continue;
    wgsl = joined;
    writable.delete(twin);
  }
  // One buffer is either written to in a dispatch or not, so all of its bindings go the same way.
  const onlyRead = new Set(
    bindings.filter((mine, i) => {
      const t = dispatch.tensors[i]!;
      const { dtype } = "byteOffset" in t ? t.tensor : t;
      return dtype !== "f32" || bindings.some((other, j) => j !== i && overlaps(mine, other));
    }).map(({ buffer }) => buffer),
  );
  const writableTogether = new Set(writable);
  declared.forEach((d, i) =>
    d.kind === "read" && !onlyRead.has(bindings[i]!.buffer) && writableTogether.add(d.binding)
  );
  declared.forEach((d, i) => {
    if (d.kind !== "read_write") return;
    bindings.forEach((other, j) => {
      if (j !== i && overlaps(bindings[i]!, other)) {
        throw new ShapeError(`${where}: bindings ${i} and ${j} overlap and one is written; this is a bug`);
      }
    });
  });
  if (dispatch.groups.some((n) => n < 1 || n > device.maxWorkgroupsPerDimension || !Number.isInteger(n))) {
    throw new ShapeError(
      `${where}: a grid of ${dispatch.groups.join(" x ")} workgroups is not possible on this device`,
    );
  }
  const { begins, size } = dispatch;
  return {
    kernel: dispatch.kernel,
    path: node.path,
    layer: node.layer?.name,
    wgsl,
    bindings,
    writable,
    writableTogether,
    ...sizes.add(size, begins ? MOST_TOGETHER * size.length : 64),
    groups: dispatch.groups,
    flops: dispatch.flops ?? 0,
    bytes,
    traffic: dispatch.traffic ?? bytes,
  };
}
