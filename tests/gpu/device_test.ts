import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { DeviceError } from "../../src/base/errors.ts";
import { BUFFER_USAGE } from "../../src/gpu/buffer_usage.ts";
import { openGpu } from "../../src/gpu/device.ts";

/** Lets events of the device arrive. */
const settle = () => new Promise((resolve) => setTimeout(resolve, 50));

Deno.test("a device that is lost is told as such, with what to do", async () => {
  const gpu = await openGpu();
  gpu.device.destroy();
  await settle();
  const error = assertThrows(() => gpu.check(), DeviceError, "the GPU device was lost");
  assertEquals(error.exitCode, 4);
  assertEquals(/resume/.test(error.hint ?? ""), true);
});

Deno.test("Gpu.check() throws what the GPU refused, though nobody awaited it", async () => {
  const gpu = await openGpu();
  const buffer = gpu.createBuffer(16, GPUBufferUsage.STORAGE, "no copy target");
  gpu.device.queue.writeBuffer(buffer.raw, 0, new Uint32Array(4));
  await settle();
  assertThrows(() => gpu.check(), DeviceError, "the GPU refused an operation");
  gpu.destroy();
});

Deno.test("Gpu.pipeline() names the kernel and the line that does not compile", async () => {
  const gpu = await openGpu();
  const error = await assertRejects(
    () => gpu.pipeline("broken", "@compute @workgroup_size(1) fn main() {\n  let x: f32 = 1u;\n}"),
    DeviceError,
    'kernel "broken" does not compile',
  );
  assertEquals(/line 2/.test(error.message) || /1u/.test(error.message), true);
  gpu.destroy();
});

Deno.test("Gpu counts bytes, and refuses a buffer larger than the device allows", async () => {
  const gpu = await openGpu();
  const buffer = gpu.createBuffer(1000, GPUBufferUsage.STORAGE, "a");
  assertEquals([gpu.allocatedBytes, gpu.peakBytes], [1000, 1000]);
  buffer.destroy();
  buffer.destroy();
  assertEquals([gpu.allocatedBytes, gpu.peakBytes], [0, 1000]);
  assertThrows(
    () => gpu.createBuffer(gpu.description.maxBufferSize + 4, GPUBufferUsage.STORAGE, "b"),
    DeviceError,
    'buffer "b"',
  );
  gpu.destroy();
});

Deno.test("Gpu.upload() waits for the device now and then, and leaves buffers alone that have been freed", async () => {
  const gpu = await openGpu();
  const bytes = new Uint8Array(48 * 2 ** 20);
  const buffer = gpu.createBuffer(bytes.length, BUFFER_USAGE.storage, "a weight");
  let waits = 0;
  const { idle } = gpu;
  gpu.idle = () => {
    waits++;
    return idle.call(gpu);
  };
  const counts: number[] = [];
  for (let i = 1; i <= 5; i++) {
    bytes.fill(i);
    await gpu.upload(buffer, 0, bytes);
    counts.push(waits);
  }
  // Two of them are within what may be on its way, three are not.
  assertEquals(counts, [0, 0, 1, 1, 2]);
  assertEquals(new Set(new Uint8Array(await gpu.read(buffer, bytes.length - 64, 64))), new Set([5]));
  // Freed while the device is waited for.
  gpu.idle = async () => {
    await idle.call(gpu);
    buffer.destroy();
  };
  await gpu.upload(buffer, 0, bytes);
  await gpu.upload(buffer, 0, bytes);
  await settle();
  gpu.check();
  gpu.destroy();
});
