/**
 * Tables of words for a terminal.
 *
 * @module
 */
// @ts-types="../../../types/std_colors.d.ts"
import { bold } from "@std/fmt/colors";

/** Lines of a table: a bold head, and columns as wide as their widest cell. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]!.length)));
  const line = (cells: readonly string[]) =>
    cells.map((cell, i) => cell.padEnd(widths[i]!)).join("  ").trimEnd();
  return [bold(line(head)), ...rows.map(line)];
}
