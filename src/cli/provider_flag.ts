/**
 * `--provider`: where the processes of a command have WebGPU from.
 *
 * @module
 */
import { PROVIDER_IDS, PROVIDER_VARIABLE } from "../runs/child/provider/choice.ts";
import type { Flag } from "./command.ts";

/** Flag of every verb that works on a GPU. */
export const PROVIDER_FLAG: Readonly<Record<string, Flag>> = {
  provider: {
    value: PROVIDER_IDS.join("|"),
    help: `Where WebGPU comes from (default ${PROVIDER_VARIABLE}, or the runtime's own); docs/providers.md`,
  },
};
