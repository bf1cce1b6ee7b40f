/**
 * Devices for commands that time no kernels: with those that were chosen before, as the data folder has them.
 *
 * @module
 */
import { readTuned } from "../runs/store/tuned_files.ts";
import { takenText, TunedDevices } from "../tune/tuned_devices.ts";
import type { Invocation } from "./command.ts";
import { DATA_FOLDER } from "../runs/store/data_folder.ts";

/** Devices with the kernels that they have chosen; of a file that is damaged is told, and it is left out. */
export async function tunedDevices({ flags, out }: Invocation): Promise<TunedDevices> {
  return new TunedDevices(await readTuned(flags.text("data") ?? DATA_FOLDER, (message) => out.warn(message)));
}

/** Tells which kernels were taken, where any were not those that stand first. */
export function noteTaken({ taken }: TunedDevices, { out }: Pick<Invocation, "out">): void {
  const text = takenText(taken);
  if (text !== undefined) out.note(text);
}
