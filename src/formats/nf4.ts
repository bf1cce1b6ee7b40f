/**
 * NF4, 4-bit codes for normally distributed values, and the quantisation of its scales (Dettmers et al., "QLoRA", arXiv 2305.14314),
 * with the numbers and the order of bits that bitsandbytes has. All arithmetic is in f32, one rounding an operation.
 *
 * A tensor is one list of values, row after row, in blocks of 64 that run across the ends of rows; the last may be short.
 *
 * @module
 */

/** Values of a block that share a magnitude. */
export const NF4_BLOCK = 64;

/** Magnitudes that share a factor. */
export const NESTED_BLOCK = 256;

/** The 16 values, rising: quantiles of the normal distribution over its largest one, one of them zero. */
export const NF4_CODE: Float32Array<ArrayBuffer> = Float32Array.of(
  -1,
  -0.6961928009986877,
  -0.5250730514526367,
  -0.39491748809814453,
  -0.28444138169288635,
  -0.18477343022823334,
  -0.09105003625154495,
  0,
  0.07958029955625534,
  0.16093020141124725,
  0.24611230194568634,
  0.33791524171829224,
  0.44070982933044434,
  0.5626170039176941,
  0.7229568362236023,
  1,
);

/**
 * The 256 values of signed dynamic 8-bit numbers, rising: of both signs and for e = 0 to 6 the middles of 2^e equal parts of 0.1 to 1,
 * times 10^(e - 6); 0; 1. Boundaries are rounded once each, as torch.linspace has them.
 */
export const DYNAMIC_CODE: Float32Array<ArrayBuffer> = dynamicCode();

function dynamicCode(): Float32Array<ArrayBuffer> {
  const [first, range] = [Math.fround(0.1), Math.fround(0.9)];
  const values = [0, 1];
  for (let e = 0; e < 7; e++) {
    const parts = 2 ** e;
    const boundary = (i: number) =>
      Math.fround(2 * i <= parts ? first + range / parts * i : 1 - range / parts * (parts - i));
    for (let i = 0; i < parts; i++) {
      const middle = Math.fround((boundary(i) + boundary(i + 1)) / 2);
      const value = Math.fround(Math.fround(10 ** (e - 6)) * middle);
      values.push(value, -value);
    }
  }
  return Float32Array.from(values).sort();
}

/** A tensor in NF4. */
export interface Nf4Values {
  /** Two codes a byte, the first in the upper half: [ceil(n / 2)]. */
  readonly packed: Uint8Array<ArrayBuffer>;
  /** The magnitude of each block, [ceil(n / 64)]. */
  readonly magnitudes: Float32Array<ArrayBuffer>;
}

/** The magnitudes of a tensor's blocks, quantised in their turn. */
export interface NestedMagnitudes {
  /** Of {@linkcode DYNAMIC_CODE}, one for each block. */
  readonly codes: Uint8Array<ArrayBuffer>;
  /** The factor of every 256 of them. */
  readonly factors: Float32Array<ArrayBuffer>;
  /** The mean of all magnitudes. */
  readonly offset: number;
}

const NF4_MIDDLES = middles(NF4_CODE);
const DYNAMIC_MIDDLES = middles(DYNAMIC_CODE);

function middles(values: Float32Array): Float32Array {
  return values.slice(1).map((value, i) => (values[i]! + value) / 2);
}

/** Index of the nearest value; half-way between two it is the lower one's. */
function nearest(value: number, middles: Float32Array): number {
  let [low, high] = [0, middles.length];
  while (low < high) {
    const at = (low + high) >> 1;
    if (middles[at]! < value) low = at + 1;
    else high = at;
  }
  return low;
}

/** The magnitude of each block of 64. */
export function magnitudesOf(values: Float32Array): Float32Array<ArrayBuffer> {
  const magnitudes = new Float32Array(Math.ceil(values.length / NF4_BLOCK));
  for (let block = 0; block < magnitudes.length; block++) {
    const end = Math.min(values.length, (block + 1) * NF4_BLOCK);
    let largest = 0;
    for (let i = block * NF4_BLOCK; i < end; i++) largest = Math.max(largest, Math.abs(values[i]!));
    magnitudes[block] = largest;
  }
  return magnitudes;
}

/** Quantises values, all finite, the first of which begins a block. */
export function quantizeNf4(values: Float32Array): Nf4Values {
  const magnitudes = magnitudesOf(values);
  const packed = new Uint8Array(Math.ceil(values.length / 2));
  const inverse = magnitudes.map((magnitude) => magnitude === 0 ? 0 : 1 / magnitude);
  const code = (i: number) => {
    const value = values[i]!;
    // Zero stays zero, whatever the inverse of the smallest numbers is.
    return value === 0 ? 7 : nearest(Math.fround(value * inverse[Math.floor(i / NF4_BLOCK)]!), NF4_MIDDLES);
  };
  for (let k = 0; k < packed.length; k++) {
    const second = 2 * k + 1 < values.length ? code(2 * k + 1) : 7;
    packed[k] = code(2 * k) << 4 | second;
  }
  return { packed, magnitudes };
}

/**
 * Values of codes.
 *
 * @param from First value, which begins a block; `packed` and `magnitudes` are those of the whole tensor
 */
export function dequantizeNf4(
  { packed, magnitudes }: Nf4Values,
  from: number,
  count: number,
): Float32Array<ArrayBuffer> {
  const values = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    const at = from + i;
    const byte = packed[at >>> 1]!;
    values[i] = NF4_CODE[at & 1 ? byte & 15 : byte >>> 4]! * magnitudes[Math.floor(at / NF4_BLOCK)]!;
  }
  return values;
}

/** Quantises the magnitudes of all blocks of a tensor. */
export function quantizeMagnitudes(magnitudes: Float32Array): NestedMagnitudes {
  const offset = Math.fround(magnitudes.reduce((sum, value) => sum + value, 0) / magnitudes.length);
  const codes = new Uint8Array(magnitudes.length);
  const factors = new Float32Array(Math.ceil(magnitudes.length / NESTED_BLOCK));
  for (let group = 0; group < factors.length; group++) {
    const from = group * NESTED_BLOCK;
    const rest = magnitudes.slice(from, from + NESTED_BLOCK).map((value) => value - offset);
    const factor = factors[group] = rest.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
    const inverse = factor === 0 ? 0 : Math.fround(1 / factor);
    rest.forEach((value, i) => codes[from + i] = nearest(Math.fround(value * inverse), DYNAMIC_MIDDLES));
  }
  return { codes, factors, offset };
}

/** Magnitudes of blocks `from` to `from + count`. */
export function restoreMagnitudes(
  { codes, factors, offset }: NestedMagnitudes,
  from = 0,
  count: number = codes.length - from,
): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: count }, (_, i) => {
    const block = from + i;
    return Math.fround(DYNAMIC_CODE[codes[block]!]! * factors[Math.floor(block / NESTED_BLOCK)]!) + offset;
  });
}
