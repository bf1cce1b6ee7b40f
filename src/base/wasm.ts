/**
 * Putting together WebAssembly modules of one function each, for the few inner loops that want vector instructions. Instructions and
 * sections are numbered as in the WebAssembly core specification 2.0, chapter 5.
 *
 * @module
 */

/** Bytes of a page of memory. */
export const PAGE = 1 << 16;

/** Types of values. */
export const I32 = 0x7f;
export const V128 = 0x7b;

/** An unsigned number in LEB128. */
export function unsigned(x: number): number[] {
  return x < 0x80 ? [x] : [x & 0x7f | 0x80, ...unsigned(x >>> 7)];
}

/** A signed one of 32 bits. */
function signed(x: number): number[] {
  const low = x & 0x7f;
  const rest = x >> 7;
  return rest === -(low >> 6) ? [low] : [low | 0x80, ...signed(rest)];
}

/** Instructions; those on locals take the local's number. */
export const get = (local: number): number[] => [0x20, ...unsigned(local)];
export const set = (local: number): number[] => [0x21, ...unsigned(local)];
export const i32 = (x: number): number[] => [0x41, ...signed(x | 0)];
const i32Add: readonly number[] = [0x6a];
const i32Subtract: readonly number[] = [0x6b];
/** Adds a number to a local. */
export const advance = (local: number, by: number): number[] => [
  ...get(local),
  ...i32(by),
  ...i32Add,
  ...set(local),
];
/** Repeats the body at least once, again while the local, which falls by one each time, is not 0. */
export const repeat = (local: number, ...body: number[]): number[] => [
  ...[0x03, 0x40, ...body],
  ...[...get(local), ...i32(1), ...i32Subtract, 0x22, ...unsigned(local), 0x0d, 0, 0x0b],
];
/** An instruction on vectors. */
export const vector = (
  operation: number,
  ...immediates: number[]
): number[] => [0xfd, ...unsigned(operation), ...immediates];
/** A vector of four words. */
export const words = (...values: number[]): number[] =>
  vector(0x0c, ...values.flatMap((x) => [0, 8, 16, 24].map((bits) => x >>> bits & 0xff)));
/** The bytes at an address and an offset, as a vector, which is read or written. */
export const load = (offset: number): number[] => vector(0x00, 3, ...unsigned(offset));
export const store = (offset: number): number[] => vector(0x0b, 3, ...unsigned(offset));

/** A function of 32-bit integers that works on the module's memory. */
export interface WasmFunction {
  readonly parameters: number;
  /** Types of its other locals, which are 0 at first. */
  readonly locals: readonly (readonly [count: number, type: number])[];
  readonly body: readonly number[];
  readonly pages: number;
}

/** The function and its memory; undefined where WebAssembly, or its vector instructions, are missing or forbidden. */
export function instantiate(
  { parameters, locals, body, pages }: WasmFunction,
): { run: (...parameters: number[]) => void; memory: ArrayBuffer } | undefined {
  const section = (id: number, ...bytes: number[]) => [id, ...unsigned(bytes.length), ...bytes];
  const named = (
    name: string,
    ...what: number[]
  ) => [name.length, ...new TextEncoder().encode(name), ...what];
  const code = [
    locals.length,
    ...locals.flatMap(([count, type]) => [...unsigned(count), type]),
    ...body,
    0x0b,
  ];
  const bytes = Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, 1, 0x60, parameters, ...new Array(parameters).fill(I32), 0),
    ...section(3, 1, 0),
    ...section(5, 1, 0, pages),
    ...section(7, 2, ...named("memory", 2, 0), ...named("run", 0, 0)),
    ...section(10, 1, ...unsigned(code.length), ...code),
  ]);
  try {
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(bytes));
    return {
      run: exports.run as (...parameters: number[]) => void,
      memory: (exports.memory as WebAssembly.Memory).buffer as ArrayBuffer,
    };
  } catch {
    // A page may forbid it, an engine may not have it.
    return undefined;
  }
}
