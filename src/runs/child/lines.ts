/**
 * What processes say to each other: a line of JSON each.
 *
 * @module
 */

/** A longer message of a child, in UTF-16 code units, is not read. */
export const LONGEST_LINE: number = 8 << 20;

/** Splits a stream of bytes into lines without their ends. One of more than `longest` UTF-16 code units comes out empty. */
export async function* readLines(
  stream: ReadableStream<Uint8Array>,
  longest: number = LONGEST_LINE,
): AsyncGenerator<string> {
  let pending = "";
  let tooLong = false;
  for await (const chunk of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (pending + chunk).split("\n");
    pending = lines.pop()!;
    for (const line of lines) {
      yield tooLong ? "" : line;
      tooLong = false;
    }
    if (pending.length > longest) {
      pending = "";
      tooLong = true;
    }
  }
  if (pending !== "" && !tooLong) yield pending;
}

/** A line's bytes. */
export function encodeLine(message: unknown): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(JSON.stringify(message) + "\n");
}

/** What a line says, if it is an object with a type; other lines were printed past the console. */
export function readMessage<M extends { type: string }>(line: string): M | undefined {
  try {
    const message = JSON.parse(line);
    return typeof message?.type === "string" ? message : undefined;
  } catch {
    return undefined;
  }
}
