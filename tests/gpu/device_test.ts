import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { DeviceError } from "../../src/base/errors.ts";
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
