/**
 * What the devices of this browser have chosen among kernels, kept in it like the runs.
 *
 * @module
 */
/// <reference types="../../types/browser.d.ts" />
import { z } from "zod";
import type { RunTuning, TunedEvent } from "../distill/run/events.ts";
import { addMeasured, type TunedDevice, tunedDeviceSchema } from "../tune/tuned.ts";
import type { KeptFiles } from "./kept_files.ts";

/** Where it is kept, and the lock of who changes it: two tabs that have measured lose nothing of each other. */
const FILE = "/tuned.json";
const LOCK = "limbeck tuned";

const keptSchema = z.array(tunedDeviceSchema);

/** What is kept; nothing where it cannot be read: it is measured again then. */
export async function tunedHere(files: KeptFiles): Promise<TunedDevice[]> {
  const text = await (await files.get(FILE))?.content?.text();
  if (text === undefined) return [];
  try {
    return keptSchema.parse(JSON.parse(text));
  } catch {
    return [];
  }
}

/** Keeps what a device has chosen, beside what it and others chose before. */
export async function keepHere(
  files: KeptFiles,
  measured: Pick<TunedEvent, "device" | "choices">,
): Promise<void> {
  await navigator.locks.request(LOCK, { ifAvailable: false }, async () => {
    const kept = addMeasured(await tunedHere(files), measured);
    await files.put([[FILE, { content: new Blob([JSON.stringify(kept)]), modified: Date.now() }]]);
  });
}

/**
 * What a run knows of its device's kernels.
 *
 * @param seconds For about how long it may time those that are not known; none are timed where it is absent
 */
export async function tuningHere(files: KeptFiles, seconds: number | undefined): Promise<RunTuning> {
  const kept = await tunedHere(files);
  return seconds === undefined ? { kept, measure: "never" } : { kept, measure: "always", seconds };
}
