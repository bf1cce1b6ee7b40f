/**
 * What has been measured of a model, kept on the disk: what was done before a kill is not done again.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { dirname } from "@std/path";
import { createHash } from "node:crypto";
import { system } from "../../base/system.ts";
import { canonicalJson, isObject } from "../../base/json.ts";
import type { Measurement } from "../../evaluation/results/measurement.ts";
import { writeTextAtomically } from "../../formats/files.ts";
import type { OpenedTask } from "./encoded_tasks.ts";

/**
 * SHA-256 (hex) of what tasks ask, and of whatever else decides what a model comes to.
 *
 * @param models What they are measured of and beside, as far as that may change
 */
export function measuringIdentity(tasks: readonly OpenedTask[], models: unknown): string {
  const asked = tasks.map(({ task: { data: _, ...task }, items }) => ({
    task,
    items: items.kind === "written"
      ? items.items.map(({ prompt, reference }) => [prompt, reference("")])
      : items.items.map(({ source: _, ...item }) => item),
  }));
  return createHash("sha256").update(canonicalJson({ asked, models })).digest("hex");
}

/**
 * What was measured before, or what is measured now, which is kept.
 *
 * @param path Of the file; its folder is made
 * @param identity Anything else that is kept there is measured anew
 */
export async function keptMeasurements(
  path: string,
  identity: string,
  measure: () => Promise<readonly Measurement[]>,
): Promise<readonly Measurement[]> {
  const kept = await readKept(path);
  if (kept?.identity === identity) return kept.measurements;
  const measurements = await measure();
  await system.mkdir(dirname(path), { recursive: true });
  await writeTextAtomically(path, JSON.stringify({ identity, measurements }) + "\n");
  return measurements;
}

/** What a file says; undefined where there is none, or it is damaged: it can be made again. */
async function readKept(
  path: string,
): Promise<{ identity: string; measurements: readonly Measurement[] } | undefined> {
  try {
    const value: unknown = JSON.parse(await system.readTextFile(path));
    if (!isObject(value) || typeof value.identity !== "string" || !Array.isArray(value.measurements)) {
      return undefined;
    }
    return { identity: value.identity, measurements: value.measurements as readonly Measurement[] };
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof system.errors.NotFound) return undefined;
    throw error;
  }
}
