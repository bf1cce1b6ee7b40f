/**
 * A stranger's text for a terminal.
 *
 * @module
 */

/** One line, no control characters, not too long. */
export function plainText(text: string): string {
  // deno-lint-ignore no-control-regex -- control characters are what is taken out
  const line = text.replace(/[\u0000-\u001f\u007f-\u009f]+/g, " ").trim();
  return line.length > 300 ? `${line.slice(0, 300)}...` : line;
}
