/**
 * The flag that names the folder of runs.
 *
 * @module
 */
import { DATA_FOLDER } from "../runs/store/data_folder.ts";
import type { Flag } from "./command.ts";

/** The flag of every verb that works with runs. */
export const DATA_FLAG: Readonly<Record<"data", Flag>> = {
  data: { value: "FOLDER", help: `Folder of runs and their store (default ${DATA_FOLDER})` },
};
