/**
 * Lists of numbers that grow, of which there are as many as a file has rows.
 *
 * @module
 */

type Numbers = Float64Array<ArrayBuffer> | Uint32Array<ArrayBuffer>;

/** Numbers in pieces, so that nothing is copied when there are more. */
export class NumberList {
  static readonly #PIECE = 1 << 16;
  readonly #pieces: Numbers[] = [];
  readonly #make: (length: number) => Numbers;
  #length = 0;

  /** @param bits 64 for any number, 32 for whole ones below 2^32 */
  constructor(bits: 64 | 32) {
    this.#make = (length) => bits === 64 ? new Float64Array(length) : new Uint32Array(length);
  }

  get length(): number {
    return this.#length;
  }

  push(value: number): void {
    const at = this.#length % NumberList.#PIECE;
    if (at === 0) this.#pieces.push(this.#make(NumberList.#PIECE));
    this.#pieces.at(-1)![at] = value;
    this.#length++;
  }

  at(index: number): number {
    return this.#pieces[Math.floor(index / NumberList.#PIECE)]![index % NumberList.#PIECE]!;
  }
}

/** A set of whole numbers from 0 to 2^53 - 2, at about 12 bytes each. */
export class NumberSet {
  #slots = new Float64Array(1 << 12).fill(-1);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** @returns whether it was not there */
  add(value: number): boolean {
    if (this.#size * 4 > this.#slots.length * 3) this.#grow();
    const slot = this.#slotOf(value);
    if (this.#slots[slot] === value) return false;
    this.#slots[slot] = value;
    this.#size++;
    return true;
  }

  has(value: number): boolean {
    return this.#slots[this.#slotOf(value)] === value;
  }

  /** Its slot, or the one that it would have. The numbers are hashes, so their low bits are spread already. */
  #slotOf(value: number): number {
    const mask = this.#slots.length - 1;
    let slot = (value % 2 ** 32) & mask;
    while (this.#slots[slot] !== -1 && this.#slots[slot] !== value) slot = (slot + 1) & mask;
    return slot;
  }

  #grow(): void {
    const old = this.#slots;
    this.#slots = new Float64Array(old.length * 2).fill(-1);
    for (const value of old) if (value !== -1) this.#slots[this.#slotOf(value)] = value;
  }
}
