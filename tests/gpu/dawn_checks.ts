/**
 * What cannot be shown with tests that other implementations pass too: memory that runs out, on Dawn's backend that only pretends to have
 * some, and entry points that nobody holds. A program of its own, run with `--v8-flags=--expose-gc`.
 *
 * @module
 */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { DeviceError } from "../../src/base/errors.ts";
import { BUFFER_USAGE } from "../../src/gpu/buffer_usage.ts";
import { SUBGROUP_MATRIX } from "../../src/gpu/description.ts";
import { openGpu } from "../../src/gpu/device.ts";
import { type DawnModule, GPU_PROVIDERS, openDawn } from "../../src/gpu/provider.ts";

const dawn = await import(GPU_PROVIDERS.dawn.package!) as DawnModule;
const { gc } = globalThis as unknown as { gc(): void };

/** Its entry point is out of reach as soon as this returns. */
const openNull = () => openGpu({ gpu: openDawn(dawn, ["backend=null"]) });

/** Has the garbage of this process collected. */
async function collect(): Promise<void> {
  for (let i = 0; i < 3; i++) {
    gc();
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const { device } = await openNull();
await collect();
// Asks the instance, which is gone where nobody held the entry point.
device.pushErrorScope("validation");
assertEquals(await device.popErrorScope(), null);

const gpu = await openNull();
const tooMuch = () =>
  Array.from({ length: 4 }, (_, i) => gpu.createBuffer(2 ** 28, BUFFER_USAGE.storage, `part ${i}`));
const error = await assertRejects(
  () => gpu.allocating("a weight", tooMuch),
  DeviceError,
  "out of GPU memory while allocating a weight",
);
assertEquals((error as DeviceError).exitCode, 4);
assertMatch((error as DeviceError).hint ?? "", /tokensPerMicroBatch/);

// The backend offers what no driver here does, so that its compiler can be asked for kernels that want it.
assertEquals(gpu.features.has(SUBGROUP_MATRIX), true);
assertEquals(gpu.description.subgroupMatrices, []);
Deno.exit(0);
