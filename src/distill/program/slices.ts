/**
 * Running a block in slices of bounded time, so that others get their turn: timers, pipes, whoever watches over the run.
 *
 * @module
 */
import type { KernelFamily } from "../../gpu/description.ts";
import type { Executable } from "../../tensor/executable.ts";

/** Floating-point operations between two signs of life: about a tenth of a second. */
const SLICE_FLOPS: Readonly<Record<KernelFamily, number>> = { subgroup8: 3e9, tiled: 5e10 };

/**
 * Queues a block; `onSlice` is called after each slice.
 *
 * @param without Layers whose dispatches are left out; see `Executable.run`
 */
export async function runInSlices(
  executable: Executable,
  block: string,
  onSlice: () => void = () => {},
  without?: ReadonlySet<string>,
): Promise<void> {
  const slices = executable.slices(block, SLICE_FLOPS[executable.plan.device.family], without);
  for (const [from, to] of slices) {
    executable.runSlice(block, from, to, without);
    onSlice();
    // Timers and pipes get their turn: control lines are read, heartbeats leave.
    if (slices.length > 1) await new Promise((resolve) => setTimeout(resolve, 0));
  }
}
