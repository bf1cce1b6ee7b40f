/**
 * What is left of an earlier attempt at a run.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { LimbeckError } from "../../base/errors.ts";
import { ALIVE_LOCK } from "../child/training.ts";

/** A child whose parent was killed saves a checkpoint and ends; until then the run's folder is still its own. */
export async function waitForEarlierChild(folder: string, onWait?: () => Promise<void>): Promise<void> {
  const path = join(folder, ALIVE_LOCK);
  const deadline = performance.now() + 60_000;
  using file = await Deno.open(path, { read: true, write: true, create: true });
  if (await file.tryLock(true)) return;
  await onWait?.();
  while (!await file.tryLock(true)) {
    if (performance.now() > deadline) {
      const holder = (await Deno.readTextFile(path).catch(() => "")).trim();
      throw new LimbeckError(
        `${folder}: an earlier training process of this run still works${holder ? ` (${holder})` : ""}`,
        { hint: "Wait for it to end, or end it." },
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}
