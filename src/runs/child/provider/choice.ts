/**
 * Which implementation of WebGPU the processes of this machine work with: a flag says (`--provider`), or the environment variable
 * `LIMBECK_PROVIDER`.
 *
 * @module
 */
import { UsageError } from "../../../base/errors.ts";
import { GPU_PROVIDERS, type ProviderId } from "../../../gpu/provider.ts";

/** The environment variable that chooses. */
export const PROVIDER_VARIABLE = "LIMBECK_PROVIDER";

/** Names of all providers. */
export const PROVIDER_IDS = Object.keys(GPU_PROVIDERS) as readonly ProviderId[];

/** What a flag has chosen. */
let chosen: ProviderId | undefined;

/**
 * The provider of this name.
 *
 * @param where The flag or variable that it comes from
 * @throws {UsageError} there is none
 */
export function readProvider(name: string, where: string): ProviderId {
  if (Object.hasOwn(GPU_PROVIDERS, name)) return name as ProviderId;
  throw new UsageError(`${where} must be ${PROVIDER_IDS.join(" or ")}, not "${name}"`);
}

/** Has processes work with this one from now on, whatever the environment says. */
export function chooseProvider(id: ProviderId): void {
  chosen = id;
}

/**
 * What processes of this machine work with: what a flag chose, else what the environment says, else the runtime's own.
 *
 * @throws {UsageError} the environment names one that there is not
 */
export function machineProvider(): ProviderId {
  if (chosen !== undefined) return chosen;
  let name: string | undefined;
  try {
    name = Deno.env.get(PROVIDER_VARIABLE);
  } catch {
    // Without the permission to look.
  }
  return name ? readProvider(name, PROVIDER_VARIABLE) : "native";
}
