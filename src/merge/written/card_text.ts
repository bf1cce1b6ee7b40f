/**
 * What model cards of all kinds have in common.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { basename } from "@std/path";
import { placeOf } from "../../hub/hub_cache.ts";

/** SHA-256 of the weights of a model, in hexadecimal. */
export interface WeightsHash {
  readonly model: string;
  readonly sha256: string;
}

/** The last parts of paths where they tell them apart, else whole paths: a card is read where the folders are not. */
export function shortNames(paths: readonly string[]): Map<string, string> {
  const counts = new Map<string, number>();
  for (const path of paths) counts.set(shortName(path), (counts.get(shortName(path)) ?? 0) + 1);
  return new Map(paths.map((path) => [path, counts.get(shortName(path)) === 1 ? shortName(path) : path]));
}

/** A model of the hub is known by its name there. */
function shortName(path: string): string {
  return placeOf(path)?.repository ?? basename(path);
}

/** A table in Markdown. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)];
}
