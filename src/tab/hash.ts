/**
 * Hashes without waiting, as `node:crypto` makes them: a browser's own, `crypto.subtle`, takes all bytes at once and answers later.
 *
 * @module
 */
import { sha256 } from "@noble/hashes/sha2.js";

/** What is hashed bit by bit. */
export class Hash {
  readonly #state = sha256.create();

  /** Adds the bytes of a view, or a text in UTF-8. */
  update(data: string | ArrayBufferView): this {
    this.#state.update(
      typeof data === "string"
        ? new TextEncoder().encode(data)
        : new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
    );
    return this;
  }

  /** All that was added, in hexadecimal digits. */
  digest(_encoding: "hex"): string {
    return Array.from(this.#state.digest(), (byte) => byte.toString(16).padStart(2, "0")).join("");
  }
}

/** Begins a hash. */
export function createHash(_algorithm: "sha256"): Hash {
  return new Hash();
}
