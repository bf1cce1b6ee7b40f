/**
 * What an adapter leaves out of a difference, as a table.
 *
 * @module
 */
import type { ExtractResult } from "../../merge/residual/extract.ts";
import { leftOutLines } from "../../merge/residual/extract.ts";
import { table } from "./table.ts";

/** Errors by layer and in total, and the share that no adapter holds. */
export function leftOutTable(result: ExtractResult): string[] {
  const rows = result.byLayer.map((error, layer) => [String(layer), error.toFixed(4)]);
  return [
    ...table(["layer", "relative error"], [...rows, ["all", result.total.toFixed(4)]]),
    ...leftOutLines(result).slice(1),
  ];
}
