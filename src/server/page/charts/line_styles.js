/** Which colour and dashes a line has: the same thing looks the same in every chart, and next time too. */
import { remember, remembered } from "../memory.js";

/** Colours of the palette, `--hue-1` and on. They can be told apart with any eyes; see base.css. */
export const HUES = 8;
const DASHES = [undefined, [8, 4], [2, 4]];

/** Gives each key a style that it keeps until others need it. */
export class LineStyles {
  #name;
  #count;
  /** Keys by the number of their style, which may have gaps. */
  #keys;

  /**
   * @param {string} name under which it is remembered
   * @param {number} [count] styles, colours first, then the same colours with dashes
   */
  constructor(name, count = HUES * DASHES.length) {
    this.#name = name;
    this.#count = count;
    const known = remembered(name);
    this.#keys = Array.isArray(known) ? known.slice(0, count) : [];
  }

  /** Styles of keys that are shown together: no two the same as long as there are enough. */
  claim(keys) {
    for (const key of keys) {
      if (this.#keys.includes(key)) continue;
      const numbers = Array.from({ length: this.#count }, (_, number) => number);
      const free = numbers.find((number) => (this.#keys[number] ?? null) === null) ??
        numbers.find((number) => !keys.includes(this.#keys[number])) ?? 0;
      this.#keys[free] = key;
      remember(this.#name, this.#keys);
    }
    return new Map(keys.map((key) => [key, styleOf(this.#keys.indexOf(key))]));
  }
}

function styleOf(number) {
  const [hue, dash] = [Math.max(0, number) % HUES + 1, DASHES[Math.floor(Math.max(0, number) / HUES)]];
  return { color: `--hue-${hue}`, dash };
}

/** Styles of losses, by their names. */
export const lossStyles = new LineStyles("losses");
/** Styles of runs, by their ids. */
export const runStyles = new LineStyles("runs", HUES);
