/** Weights in every storage of blocks, as kernels get them, beside the numbers they hold. */
import { unpackGguf } from "../../src/formats/gguf/types.ts";
import { layOutGguf, layOutNf4, layOutNf4Double } from "../../src/formats/quantised/gpu_layout.ts";
import {
  dequantizeNf4,
  type NestedMagnitudes,
  type Nf4Values,
  quantizeMagnitudes,
  quantizeNf4,
  restoreMagnitudes,
} from "../../src/formats/nf4.ts";
import { type BlockDtype, byteLength } from "../../src/tensor/weight_storage.ts";
import { randomArray, type Value } from "./harness.ts";

/** A weight for kernels, and its values. */
export type QuantisedValue = Value & { readonly values: Float32Array };

/** Every storage of blocks. */
export const BLOCK_DTYPES: readonly BlockDtype[] = ["q8_0", "q4_0", "q4_k", "q6_k", "nf4", "nf4-double"];

type GgufDtype = Exclude<BlockDtype, "nf4" | "nf4-double">;

/** Values of a block in a file, its bytes, and where its f16 are. */
const GGUF: Readonly<Record<GgufDtype, { values: number; bytes: number; halves: readonly number[] }>> = {
  q8_0: { values: 32, bytes: 34, halves: [0] },
  q4_0: { values: 32, bytes: 18, halves: [0] },
  q4_k: { values: 256, bytes: 144, halves: [0, 2] },
  q6_k: { values: 256, bytes: 210, halves: [208] },
};

/** Values of the blocks that rows of a file are made of. */
export function blockOf(dtype: BlockDtype): number {
  return dtype in GGUF ? GGUF[dtype as GgufDtype].values : 1;
}

/** A random weight: any bits, with scales of an ordinary size, but that of the first block, which is subnormal. */
export function quantisedValue(dtype: BlockDtype, shape: readonly number[], seed: number): QuantisedValue {
  const count = shape.reduce((a, b) => a * b, 1);
  if (dtype === "nf4" || dtype === "nf4-double") {
    const quantised = quantizeNf4(randomArray(count, seed));
    return dtype === "nf4"
      ? nf4Value(shape, quantised)
      : nf4DoubleValue(shape, quantised.packed, quantizeMagnitudes(quantised.magnitudes));
  }
  const { values, bytes, halves } = GGUF[dtype];
  const raw = Uint8Array.from(randomArray(count / values * bytes, seed), (r) => Math.floor((r + 1) * 128));
  for (let block = 0; block < count / values; block++) {
    for (const at of halves) {
      // 2^-7 and a little, of both signs; 0x00.. is below the smallest normal number.
      raw[block * bytes + at + 1] = block === 0 ? 0x83 : (raw[block * bytes + at + 1]! & 0x80) | 0x20;
    }
  }
  return ggufValue(dtype, shape, raw);
}

/** Blocks of a GGUF file. */
export function ggufValue(dtype: GgufDtype, shape: readonly number[], raw: Uint8Array): QuantisedValue {
  return {
    ...bound(dtype, shape, layOutGguf(dtype, raw)),
    values: unpackGguf(dtype.toUpperCase(), Uint8Array.from(raw)) as Float32Array,
  };
}

/** NF4 with magnitudes as they are. */
export function nf4Value(shape: readonly number[], quantised: Nf4Values): QuantisedValue {
  const count = shape.reduce((a, b) => a * b, 1);
  return {
    ...bound("nf4", shape, layOutNf4(quantised.packed, quantised.magnitudes, count)),
    values: dequantizeNf4(quantised, 0, count),
  };
}

/** NF4 with quantised magnitudes. */
export function nf4DoubleValue(
  shape: readonly number[],
  packed: Uint8Array<ArrayBuffer>,
  nested: NestedMagnitudes,
): QuantisedValue {
  const count = shape.reduce((a, b) => a * b, 1);
  return {
    ...bound("nf4-double", shape, layOutNf4Double(packed, nested, 0, count)),
    values: dequantizeNf4({ packed, magnitudes: restoreMagnitudes(nested) }, 0, count),
  };
}

function bound(dtype: BlockDtype, shape: readonly number[], bytes: Uint8Array): Value {
  // Garbage behind the end: it must not be read as values.
  const padded = new Uint8Array(byteLength({ shape, dtype })).fill(0xff);
  padded.set(bytes);
  return { shape, dtype, kind: "weight", data: new Uint32Array(padded.buffer) };
}
