/**
 * Events that a training process could not deliver because the process that started it was gone.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import type { RunLog } from "../store/event_log.ts";
import { isCounted, parseEvent, UNSENT_FILE } from "../child/training.ts";

/**
 * Stores what the last attempt kept, as far as nothing is missing before it: what was on its way in the pipe is lost. The file is gone
 * afterwards.
 */
export async function storeUnsent(log: RunLog, folder: string): Promise<void> {
  const path = join(folder, UNSENT_FILE);
  let text: string;
  try {
    text = await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    throw error;
  }
  const { attempt } = log;
  // States are the supervisor's; it adds an error only where no process is left that could keep events.
  let stored = (await log.store.events(log.id, { attempt })).filter(isCounted).length;
  for (const line of text.split("\n")) {
    const kept = readKept(line);
    if (!kept || kept.n !== stored + 1) break;
    await log.append([kept.event], attempt);
    stored++;
  }
  await Deno.remove(path);
}

function readKept(line: string) {
  try {
    const { n, event } = JSON.parse(line);
    const body = parseEvent(JSON.stringify(event));
    return body && { n: Number(n), event: body };
  } catch {
    return undefined;
  }
}
