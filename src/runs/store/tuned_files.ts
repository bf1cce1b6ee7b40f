/**
 * What the devices of this machine have chosen among kernels, kept in a data folder: a file for each device.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { InputError } from "../../base/errors.ts";
import { canonicalJson } from "../../base/json.ts";
import { unwritable, writeTextAtomically } from "../../formats/files.ts";
import {
  addChoices,
  choicesOf,
  type DeviceIdentity,
  measuredSchema,
  sha256,
  type TunedChoice,
  type TunedDevice,
  tunedDeviceSchema,
} from "../../tune/tuned.ts";
import { tunedFolder } from "./layout.ts";

/** A larger one is none of ours. */
const MOST_BYTES = 16 * 2 ** 20;

/** Locked by who changes a file, so that two who have measured lose nothing of each other. */
const LOCK = ".lock";

/**
 * What is kept of all devices.
 *
 * @param onDamaged Told of a file that cannot be used: it is left out, and written anew when its device measures again
 */
export async function readTuned(
  dataFolder: string,
  onDamaged: (message: string) => void = () => {},
): Promise<TunedDevice[]> {
  const folder = tunedFolder({ folder: dataFolder });
  const found: TunedDevice[] = [];
  let entries: Deno.DirEntry[];
  try {
    entries = await Array.fromAsync(Deno.readDir(folder));
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) onDamaged(`${folder} cannot be read: ${error}`);
    return [];
  }
  for (const { name, isFile } of entries.toSorted((a, b) => a.name < b.name ? -1 : 1)) {
    if (!isFile || !name.endsWith(".json") || name.startsWith(".")) continue;
    const device = await readOne(join(folder, name), onDamaged);
    if (device) found.push(device);
  }
  return found;
}

async function readOne(
  path: string,
  onDamaged: (message: string) => void,
): Promise<TunedDevice | undefined> {
  try {
    const { size } = await Deno.stat(path);
    if (size > MOST_BYTES) throw new Error(`it has ${size} bytes`);
    const parsed = tunedDeviceSchema.safeParse(JSON.parse(await Deno.readTextFile(path)));
    if (parsed.success) return parsed.data;
    const { path: at, message } = parsed.error.issues[0]!;
    throw new Error(`${at.join(".") || "the file"}: ${message}`);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    onDamaged(
      `${path} is left out, and what it says of a device's kernels is measured again: ${
        (error as Error).message
      }`,
    );
    return undefined;
  }
}

/**
 * Keeps what a device has chosen, beside what it chose before.
 *
 * @throws {InputError} the folder cannot be written
 * @throws {DiskFullError} the disk is full
 */
export async function keepTuned(
  dataFolder: string,
  device: DeviceIdentity,
  choices: readonly TunedChoice[],
): Promise<void> {
  const folder = tunedFolder({ folder: dataFolder });
  const path = join(folder, `${(await sha256(canonicalJson(device))).slice(0, 16)}.json`);
  try {
    await Deno.mkdir(folder, { recursive: true });
    using lock = await Deno.open(join(folder, LOCK), { write: true, create: true });
    await lock.lock(true);
    const before = await readOne(path, () => {});
    const all = addChoices(before ? choicesOf([before], device) : [], choices);
    const kept: TunedDevice = { version: 1, device, choices: all };
    await writeTextAtomically(path, JSON.stringify(kept, null, 1) + "\n");
  } catch (error) {
    throw unwritable(folder, error);
  }
}

/**
 * Keeps what a process has told of its device.
 *
 * @throws {InputError} it is nothing of the kind, or the folder cannot be written
 */
export async function keepMeasured(dataFolder: string, told: unknown): Promise<void> {
  const parsed = measuredSchema.safeParse(told);
  if (!parsed.success) throw new InputError(`it is not well formed: ${parsed.error.issues[0]!.message}`);
  await keepTuned(dataFolder, parsed.data.device, parsed.data.choices);
}
