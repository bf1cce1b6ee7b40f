/**
 * Half-precision numbers. Conversions to f32 are exact; conversions from f32 round to nearest, ties to even. All of it is
 * integer arithmetic on the bits, so subnormals, infinities and the payload of a NaN survive.
 *
 * @module
 */

/** How weights are stored: `f16` is IEEE binary16, `bf16` the upper half of an f32. */
export type FloatDtype = "f32" | "f16" | "bf16";

/** Values of a tensor in the storage named by `dtype`: `Float32Array` for f32, raw bits for f16 and bf16. */
export type FloatData = Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>;

let halfTable: Uint32Array<ArrayBuffer> | undefined;

/** The f32 bits of every f16, indexed by its bits: 256 KiB, made on first use. */
function halfToFloatBits(): Uint32Array<ArrayBuffer> {
  if (halfTable) return halfTable;
  const table = new Uint32Array(65536);
  for (let half = 0; half < 65536; half++) {
    const sign = (half & 0x8000) << 16;
    const exponent = (half >>> 10) & 31;
    let fraction = half & 0x3ff;
    let bits: number;
    if (exponent === 31) bits = 0x7f800000 | (fraction << 13);
    else if (exponent > 0) bits = ((exponent + 112) << 23) | (fraction << 13);
    else if (fraction === 0) bits = 0;
    else {
      let shift = 0;
      while (!(fraction & 0x400)) {
        fraction <<= 1;
        shift++;
      }
      bits = ((113 - shift) << 23) | ((fraction & 0x3ff) << 13);
    }
    table[half] = sign | bits;
  }
  return halfTable = table;
}

let halfNumbers: Float32Array | undefined;

/** The value of every f16, indexed by its bits, for readers that meet one in the middle of other bytes. Not to be written to. */
export function halfValues(): Float32Array {
  return halfNumbers ??= new Float32Array(halfToFloatBits().buffer);
}

/** f16 bits to f32, exactly. */
export function halfToFloat32(half: Uint16Array): Float32Array<ArrayBuffer> {
  const table = halfToFloatBits();
  const bits = new Uint32Array(half.length);
  for (let i = 0; i < half.length; i++) bits[i] = table[half[i]];
  return new Float32Array(bits.buffer);
}

/** One f16, given by its bits, as a number. */
export function halfToNumber(half: number): number {
  return halfToFloat32(Uint16Array.of(half))[0];
}

/** f32 to f16 bits, rounded to nearest even; what is too large becomes infinity. */
export function float32ToHalf(values: Float32Array): Uint16Array<ArrayBuffer> {
  const bits = bitsOf(values);
  const half = new Uint16Array(bits.length);
  for (let i = 0; i < bits.length; i++) {
    const sign = (bits[i] >>> 16) & 0x8000;
    const magnitude = bits[i] & 0x7fffffff;
    let rounded: number;
    if (magnitude >= 0x47800000) {
      // 65536 and above, infinity, NaN (made quiet, so that no payload can turn it into an infinity).
      rounded = magnitude > 0x7f800000 ? 0x7e00 | ((magnitude >>> 13) & 0x3ff) : 0x7c00;
    } else if (magnitude >= 0x38800000) {
      // Normal in f16: rebias the exponent and round away 13 bits; a carry into the exponent is right, up to infinity.
      const rebased = magnitude - 0x38000000;
      rounded = (rebased + 0xfff + ((rebased >>> 13) & 1)) >>> 13;
    } else if (magnitude < 0x33000000) {
      rounded = 0; // below 2^-25, half of the smallest subnormal
    } else {
      const mantissa = (magnitude & 0x7fffff) | 0x800000;
      const shift = 126 - (magnitude >>> 23);
      const rest = mantissa & ((1 << shift) - 1);
      const middle = 1 << (shift - 1);
      rounded = mantissa >>> shift;
      if (rest > middle || (rest === middle && (rounded & 1))) rounded++;
    }
    half[i] = sign | rounded;
  }
  return half;
}

/** bf16 bits to f32, exactly. */
export function bfloatToFloat32(bfloat: Uint16Array): Float32Array<ArrayBuffer> {
  const bits = new Uint32Array(bfloat.length);
  for (let i = 0; i < bfloat.length; i++) bits[i] = bfloat[i] << 16;
  return new Float32Array(bits.buffer);
}

/** f32 to bf16 bits, rounded to nearest even. */
export function float32ToBfloat(values: Float32Array): Uint16Array<ArrayBuffer> {
  const bits = bitsOf(values);
  const bfloat = new Uint16Array(bits.length);
  for (let i = 0; i < bits.length; i++) {
    const value = bits[i];
    bfloat[i] = (value & 0x7fffffff) > 0x7f800000
      ? (value >>> 16) | 0x40
      : (value + 0x7fff + ((value >>> 16) & 1)) >>> 16;
  }
  return bfloat;
}

/** Values in any storage as f32, exactly. An f32 array is returned as it is, not copied. */
export function toFloat32(dtype: FloatDtype, data: FloatData): Float32Array<ArrayBuffer> {
  if (data instanceof Float32Array) return data;
  return dtype === "f16" ? halfToFloat32(data) : bfloatToFloat32(data);
}

/** f32 values in the storage asked for, rounded to nearest even. An f32 array is returned as it is, not copied. */
export function fromFloat32(dtype: FloatDtype, values: Float32Array<ArrayBuffer>): FloatData {
  if (dtype === "f32") return values;
  return dtype === "f16" ? float32ToHalf(values) : float32ToBfloat(values);
}

/**
 * How many values are NaN or infinite, and where the first one is.
 *
 * @returns undefined when all are finite.
 */
export function scanNonFinite(
  dtype: FloatDtype,
  data: FloatData,
): { count: number; first: number } | undefined {
  const bits = data instanceof Float32Array ? bitsOf(data) : data;
  const exponent = { f32: 0x7f800000, f16: 0x7c00, bf16: 0x7f80 }[dtype];
  if (data instanceof Uint16Array && allFinite(data, exponent)) return undefined;
  let count = 0;
  let first = -1;
  for (let i = 0; i < bits.length; i++) {
    if ((bits[i] & exponent) === exponent) {
      if (count++ === 0) first = i;
    }
  }
  return count ? { count, first } : undefined;
}

/** Whether no f16 or bf16 has an exponent of ones, two at a time: one more than these carries into the sign's bit. False also where it cannot be seen so. */
function allFinite(data: Uint16Array, exponent: number): boolean {
  if (data.byteOffset % 4 !== 0) return false;
  const pairs = new Uint32Array(data.buffer, data.byteOffset, data.length >> 1);
  const mask = exponent * 0x10001;
  const one = (0x8000 - exponent) * 0x10001;
  let carries = 0;
  for (let i = 0; i < pairs.length; i++) carries |= (pairs[i] & mask) + one;
  if (data.length % 2 === 1) carries |= (data[data.length - 1] & mask) + one;
  return (carries & 0x80008000) === 0;
}

function bitsOf(values: Float32Array): Uint32Array {
  return new Uint32Array(values.buffer, values.byteOffset, values.length);
}
