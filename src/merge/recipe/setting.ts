/**
 * What a merge's options may be set to: one value, a gradient along the layers, or values by the names of tensors. The same rules as
 * mergekit's parameters.
 *
 * @module
 */
import { z } from "zod";

const scalar = z.union([z.number(), z.boolean(), z.string()]);
const gradient = z.array(z.number()).min(1);
const filtered = z.strictObject({
  filter: z.string().optional().describe("Part of a tensor's name; absent or * for every tensor"),
  value: z.union([scalar, gradient]),
});

/** Schema of a {@linkcode Setting}. */
export const settingSchema = z.union([scalar, gradient, z.array(filtered).min(1), filtered]);

/** A value of an option. */
export type Scalar = z.output<typeof scalar>;

/** What an option is set to; see {@linkcode readSetting}. */
export type Setting = z.output<typeof settingSchema>;

/** Options as they are written, by name. */
export type Settings = Readonly<Record<string, Setting>>;

/**
 * The value of a setting for one tensor. A list of numbers is a gradient: linear between knots that lie evenly on [0, 1]. Of a list of
 * filters the first counts that is a part of the name, is `*` or has no filter.
 *
 * @param name Of the tensor
 * @param t Where the tensor's layer lies in its slice, from 0 to 1
 * @returns undefined where no filter fits
 */
export function readSetting(setting: Setting, name: string, t: number): Scalar | undefined {
  if (typeof setting !== "object") return setting;
  if (!Array.isArray(setting)) return readSetting([setting as Filtered], name, t);
  if (isGradient(setting)) return interpolate(setting, t);
  const found = (setting as readonly Filtered[]).find(({ filter }) =>
    filter === undefined || filter === "*" || name.includes(filter)
  );
  return found && readSetting(found.value, name, t);
}

/** Every value that is written in a setting, whatever the tensor: of a gradient its knots. */
export function writtenValues(setting: Setting): readonly Scalar[] {
  if (typeof setting !== "object") return [setting];
  if (!Array.isArray(setting)) return writtenValues((setting as Filtered).value);
  return setting.flatMap((entry: number | Filtered) =>
    typeof entry === "number" ? [entry] : writtenValues(entry.value)
  );
}

type Filtered = z.output<typeof filtered>;

function isGradient(list: readonly unknown[]): list is readonly number[] {
  return list.every((entry) => typeof entry === "number");
}

/** Linear between knots at i / (count - 1). */
function interpolate(knots: readonly number[], t: number): number {
  const place = t * (knots.length - 1);
  const below = Math.floor(place);
  const above = Math.min(below + 1, knots.length - 1);
  const share = place - below;
  return (1 - share) * knots[below]! + share * knots[above]!;
}

/**
 * The value of an option for one tensor: of the levels that set it, the first whose setting says something for this tensor.
 *
 * @param levels From the most particular to the most general
 */
export function readOption(
  option: string,
  levels: readonly Settings[],
  name: string,
  t: number,
): Scalar | undefined {
  for (const level of levels) {
    if (!Object.hasOwn(level, option)) continue;
    const value = readSetting(level[option]!, name, t);
    if (value !== undefined) return value;
  }
  return undefined;
}
