/**
 * Windows over a text that is longer than a model's context.
 *
 * @module
 */

/** A window: tokens from `start` to before `end`, of which those from `firstCounted` on are counted. */
export interface TextWindow {
  readonly start: number;
  readonly end: number;
  readonly firstCounted: number;
}

/**
 * Windows of `length` tokens that begin `stride` apart; the last is the first that reaches the end. A token counts in the first window that
 * predicts it, and a window never predicts its own first token. So with a stride below the length each token but the first counts once, with
 * as much before it as the overlap gives; with a stride of the length, the tokens at the beginnings of windows do not count.
 *
 * @throws {RangeError} a length below 2, or a stride outside 1 to the length
 */
export function textWindows(tokens: number, length: number, stride: number = length): TextWindow[] {
  if (!(length >= 2) || !(stride >= 1 && stride <= length)) {
    throw new RangeError(`windows of ${length} tokens cannot begin ${stride} apart`);
  }
  const windows: TextWindow[] = [];
  let counted = 1;
  for (let start = 0;; start += stride) {
    const end = Math.min(start + length, tokens);
    const firstCounted = Math.max(counted, start + 1);
    if (firstCounted < end) windows.push({ start, end, firstCounted });
    counted = Math.max(counted, end);
    if (end >= tokens) return windows;
  }
}
