/**
 * What a device chose among kernels, as a table.
 *
 * @module
 */
import { short } from "../../base/units.ts";
import { peakRates, type TunedChoice } from "../../tune/tuned.ts";
import { table } from "./table.ts";

/** A line for each choice. */
export function tunedLines(choices: readonly TunedChoice[]): string[] {
  const rows = choices.map((
    { key, first, kernel, seconds, firstSeconds, flops, bytes, tried, candidates },
  ) => [
    ...[key, first, kernel === first ? "the same" : kernel],
    ...[`${short(seconds * 1000)} ms`, short(flops / seconds / 1e9), short(bytes / seconds / 1e9)],
    ...[`${(firstSeconds / seconds).toFixed(2)} x`, `${tried.length + 1} of ${candidates}`],
  ]);
  return table(["work", "stands first", "best", "time", "GFLOP/s", "GB/s", "gain", "timed"], rows);
}

/** Kernels that must not be used, and why. */
export function refusedLines(choices: readonly TunedChoice[]): string[] {
  return choices.flatMap(({ key, tried }) =>
    tried.flatMap(({ kernel, refused }) =>
      refused === undefined ? [] : [`${key}: ${kernel} is not used: ${refused}`]
    )
  );
}

/** Kinds of work that were not timed, by the reason. */
export function leftLines(left: Readonly<Record<string, string>>): string[] {
  const byReason = Object.groupBy(Object.keys(left), (key) => left[key]!);
  return Object.entries(byReason).map(([why, keys = []]) => {
    const more = keys.length > SHOWN ? `, and ${keys.length - SHOWN} more` : "";
    return `not timed, ${why}: ${keys.slice(0, SHOWN).join(", ")}${more}`;
  });
}

/** Kinds of work that are named at most. */
const SHOWN = 3;

/** The most that the device was seen to do. */
export function peakLine(choices: readonly TunedChoice[]): string | undefined {
  const peak = peakRates(choices);
  return peak &&
    `best seen: ${short(peak.operations.rate / 1e9)} GFLOP/s (${peak.operations.key}), ${
      short(peak.bytes.rate / 1e9)
    } GB/s (${peak.bytes.key})`;
}
