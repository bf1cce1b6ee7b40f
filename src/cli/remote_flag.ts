/**
 * The flag that sends a verb to a service.
 *
 * @module
 */
import { RemoteRuns } from "../runs/store/remote_runs.ts";
import type { Flag, Invocation } from "./command.ts";

/** The flag of every verb that a service can be asked for. */
export const REMOTE_FLAG: Readonly<Record<"remote", Flag>> = {
  remote: { value: "URL", help: "Ask the service there; its token is read from LIMBECK_TOKEN" },
};

/** The service that the flags name, if they name one. */
export function remoteRuns({ flags }: Invocation): RemoteRuns | undefined {
  const url = flags.text("remote");
  if (url === undefined) return undefined;
  let token: string | undefined;
  try {
    token = Deno.env.get("LIMBECK_TOKEN") || undefined;
  } catch {
    // Without the permission to look there is none.
  }
  return new RemoteRuns(url, token);
}
