/**
 * Prints how many lanes the subgroups of this process's adapter have, 0 where they vary. Fails where there is no adapter.
 *
 * @module
 */
import { openGpu } from "../../src/gpu/device.ts";

const gpu = await openGpu();
console.log(gpu.description.subgroupSize);
Deno.exit(0);
