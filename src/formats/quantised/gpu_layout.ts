/**
 * Blocks of quantised values as kernels read them: the same bits as in files, in whole words. The storages of
 * `src/tensor/weight_storage.ts` say how many values and bytes; the texts of `kernels/include/weights_*.wgsl` say what lies where.
 *
 * @module
 */
import { type BlockDtype, bytesOf, STORAGES } from "../../tensor/weight_storage.ts";
import { NESTED_BLOCK, type NestedMagnitudes, NF4_BLOCK } from "../nf4.ts";

/** Storages whose blocks are those of a GGUF type. */
export type GgufBlockDtype = Exclude<BlockDtype, "nf4" | "nf4-double">;

/** Blocks of GGUF: bytes, and how many of them are one block on the GPU. */
const GGUF_BLOCKS: Readonly<Record<GgufBlockDtype, { values: number; bytes: number; together: number }>> = {
  q8_0: { values: 32, bytes: 34, together: 2 },
  q4_0: { values: 32, bytes: 18, together: 2 },
  q4_k: { values: 256, bytes: 144, together: 1 },
  q6_k: { values: 256, bytes: 210, together: 2 },
};

/**
 * Blocks of a GGUF type. Where two are one on the GPU, their scales, 16 bits each, stand before the rest of both; the second of the last
 * pair may be missing, and is zeros then.
 *
 * @param blocks Whole blocks, the first of which begins a block on the GPU
 */
export function layOutGguf(
  dtype: GgufBlockDtype,
  blocks: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const { values, bytes, together } = GGUF_BLOCKS[dtype];
  const count = blocks.length / bytes;
  const out = new Uint8Array(bytesOf(dtype, count * values));
  if (together === 1) {
    out.set(blocks);
    return out;
  }
  const rest = bytes - 2;
  // The scale is the first of a block, or in q6_k the last.
  const [scaleAt, restAt] = dtype === "q6_k" ? [rest, 0] : [0, 2];
  for (let block = 0; block < count; block++) {
    const from = block * bytes;
    const to = (block >> 1) * 2 * bytes;
    const second = block & 1;
    out[to + 2 * second] = blocks[from + scaleAt]!;
    out[to + 2 * second + 1] = blocks[from + scaleAt + 1]!;
    out.set(blocks.subarray(from + restAt, from + restAt + rest), to + 4 + second * rest);
  }
  return out;
}

/** The first of the words before the codes of 32 blocks that are quantised twice, and how many words these are. */
const [GROUP, HEAD_BYTES] = [32, 40];

/**
 * Codes of NF4 with their magnitudes.
 *
 * @param packed Of `count` values, the first of which begins a block on the GPU
 * @param magnitudes Of their blocks
 */
export function layOutNf4(
  packed: Uint8Array,
  magnitudes: Float32Array,
  count: number,
): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(bytesOf("nf4", count));
  const view = new DataView(out.buffer);
  const bytes = NF4_BLOCK / 2;
  magnitudes.forEach((magnitude, block) => {
    view.setFloat32(block * (4 + bytes), magnitude, true);
    out.set(packed.subarray(block * bytes, (block + 1) * bytes), block * (4 + bytes) + 4);
  });
  return out;
}

/**
 * Codes of NF4 whose magnitudes are quantised.
 *
 * @param packed Of `count` values, the first of which begins a block on the GPU
 * @param nested Of the whole tensor
 * @param from The tensor's block that is their first
 */
export function layOutNf4Double(
  packed: Uint8Array,
  { codes, factors, offset }: NestedMagnitudes,
  from: number,
  count: number,
): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(bytesOf("nf4-double", count));
  const view = new DataView(out.buffer);
  const bytes = GROUP * NF4_BLOCK / 2;
  const blocks = Math.ceil(count / NF4_BLOCK);
  for (let first = 0; first < blocks; first += GROUP) {
    const to = first / GROUP * (HEAD_BYTES + bytes);
    view.setFloat32(to, factors[Math.floor((from + first) / NESTED_BLOCK)]!, true);
    view.setFloat32(to + 4, offset, true);
    out.set(codes.subarray(from + first, from + Math.min(blocks, first + GROUP)), to + 8);
    const at = first * NF4_BLOCK / 2;
    out.set(packed.subarray(at, at + bytes), to + HEAD_BYTES);
  }
  return out;
}

/** Where the scales of a block on the GPU are, in bytes. */
const SCALES: Readonly<Record<BlockDtype, { halves?: readonly number[]; singles?: readonly number[] }>> = {
  q8_0: { halves: [0, 2] },
  q4_0: { halves: [0, 2] },
  q4_k: { halves: [0, 2] },
  q6_k: { halves: [0, 2] },
  nf4: { singles: [0] },
  "nf4-double": { singles: [0, 4] },
};

/** The place of the first value that belongs to a block with a scale that is no finite number; undefined where all are. */
export function badBlock(dtype: BlockDtype, bytes: Uint8Array<ArrayBuffer>): number | undefined {
  const { blockBytes, blockValues } = STORAGES[dtype];
  const { halves = [], singles = [] } = SCALES[dtype];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0, value = 0; at < bytes.length; at += blockBytes, value += blockValues) {
    if (halves.some((half) => (view.getUint16(at + half, true) & 0x7c00) === 0x7c00)) return value;
    if (singles.some((single) => !Number.isFinite(view.getFloat32(at + single, true)))) return value;
  }
  return undefined;
}
