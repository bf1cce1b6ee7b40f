/**
 * Measures one library on one case in this process and prints one line of JSON.
 *
 * Run with `deno run --no-lock -A bench/peers/run.ts <peer> <case> [timed steps]`; `--no-lock`, since every run of the project would
 * otherwise fetch the libraries that the lock names.
 *
 * @module
 */
import { CASE_NAMES, isCaseName, loadCase } from "./case.ts";
import { measure } from "./measure.ts";
import { PEERS } from "./peers.ts";

if (import.meta.main) {
  const [peer, caseName, timed = "4"] = Deno.args;
  const load = PEERS[peer];
  if (!load || !isCaseName(caseName)) {
    const peers = Object.keys(PEERS).join(" | ");
    console.error(
      `usage: deno run --no-lock -A bench/peers/run.ts <${peers}> <${CASE_NAMES.join(" | ")}> [timed steps]`,
    );
    Deno.exit(2);
  }
  const stepCase = loadCase(caseName);
  if (stepCase) {
    const { createPeer } = await load();
    const began = performance.now();
    const { step } = await createPeer(stepCase);
    console.log(JSON.stringify(await measure(peer, caseName, began, step, Number(timed))));
  }
  // The GPU library may hold timers or a device that would keep the process alive.
  Deno.exit(0);
}
