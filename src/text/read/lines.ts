/**
 * Bytes of a file as lines, a block of them at a time.
 *
 * @module
 */

/** Whole lines that follow one another, or a single one that is too long. */
export interface LineBlock {
  /** The lines with their ends; the last of a file may have none. Valid until the next block is asked for. Empty where the line is too long. */
  readonly bytes: Uint8Array;
  /** Where they begin in the file. */
  readonly offset: number;
  /** How many lines there are. */
  readonly lines: number;
  readonly tooLong: boolean;
}

const NEWLINE = 0x0a;

/**
 * Cuts a stream of bytes after line ends, never holding more than a chunk and one line.
 *
 * @param source chunks of any size; a source may reuse its chunk
 * @param maxBytes longest line, without its end
 */
export async function* lineBlocks(
  source: AsyncIterable<Uint8Array>,
  maxBytes: number,
): AsyncGenerator<LineBlock> {
  /** The beginning of a line whose end has not come; what is beyond the limit is counted but not kept. */
  let parts: Uint8Array[] = [];
  let length = 0;
  let offset = 0;
  const take = (end: Uint8Array): LineBlock => {
    const whole = length + end.length;
    const size = end.at(-1) === NEWLINE ? whole - 1 : whole;
    const block = size > maxBytes
      ? { bytes: new Uint8Array(), offset, lines: 1, tooLong: true }
      : { bytes: joined(parts, end), offset, lines: 1, tooLong: false };
    offset += whole;
    parts = [];
    length = 0;
    return block;
  };
  for await (const chunk of source) {
    let start = 0;
    if (length > 0) {
      const end = chunk.indexOf(NEWLINE);
      if (end >= 0) {
        yield take(chunk.subarray(0, end + 1));
        start = end + 1;
      }
    }
    const last = chunk.lastIndexOf(NEWLINE) + 1;
    if (last > start) {
      yield* within(chunk.subarray(start, last), offset, maxBytes);
      offset += last - start;
      start = last;
    }
    if (start < chunk.length) {
      const rest = chunk.subarray(start);
      length += rest.length;
      if (length <= maxBytes) parts.push(rest.slice());
      else parts = [];
    }
  }
  if (length > 0) yield take(new Uint8Array());
}

/** Whole lines as one block, or as several where one of them is too long. */
function* within(bytes: Uint8Array, offset: number, maxBytes: number): Generator<LineBlock> {
  let begin = 0;
  let lines = 0;
  for (let at = 0; at < bytes.length;) {
    const end = bytes.indexOf(NEWLINE, at);
    if (end - at > maxBytes) {
      if (lines > 0) {
        yield { bytes: bytes.subarray(begin, at), offset: offset + begin, lines, tooLong: false };
      }
      yield { bytes: new Uint8Array(), offset: offset + at, lines: 1, tooLong: true };
      begin = end + 1;
      lines = 0;
    } else lines++;
    at = end + 1;
  }
  if (lines > 0) yield { bytes: bytes.subarray(begin), offset: offset + begin, lines, tooLong: false };
}

function joined(parts: readonly Uint8Array[], end: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, end.length));
  let at = 0;
  for (const part of [...parts, end]) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
