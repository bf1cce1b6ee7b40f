/**
 * What a WGSL compiler wants to read before every kernel.
 *
 * Kernels use subgroup operations without asking for them: Tint (Dawn, Chrome) requires `enable subgroups;`, naga (wgpu, Deno,
 * Firefox) has the operations but refuses the line. Which of them a device has is found out by trying.
 *
 * @module
 */

const SUBGROUPS = "enable subgroups;\n";

/**
 * The lines that this device's compiler wants before a kernel; empty where it wants none.
 *
 * @param features The features the device was granted
 */
export async function findPreamble(device: GPUDevice, features: ReadonlySet<string>): Promise<string> {
  if (!features.has("subgroups")) return "";
  device.pushErrorScope("validation");
  device.createShaderModule({ code: `${SUBGROUPS}@compute @workgroup_size(1) fn main() {}` });
  return await device.popErrorScope() ? "" : SUBGROUPS;
}
