/**
 * What a WGSL compiler wants to read before every kernel.
 *
 * Kernels use subgroup operations without asking for them: Tint (Dawn, Chrome) requires `enable subgroups;`, naga (wgpu, Deno,
 * Firefox) has the operations but refuses the line. Which of them a device has is found out by trying.
 *
 * Tint also wants proof that subgroup operations are reached by all lanes together. Where a loop's bounds come from `subgroupMin`
 * and `subgroupMax`, as in attention on software adapters, they are equal in all lanes of a workgroup of one subgroup, but WGSL
 * cannot say so. The rule is therefore switched off; the tests look at every kernel with the rule on too.
 *
 * @module
 */

/** Asks for subgroup operations. */
export const ENABLE_SUBGROUPS = "enable subgroups;\n";

const UNPROVEN_UNIFORMITY = "diagnostic(off, subgroup_uniformity);\n";

/** What Tint wants where a device has subgroups. */
export const TINT_PREAMBLE: string = ENABLE_SUBGROUPS + UNPROVEN_UNIFORMITY;

/**
 * The lines that this device's compiler wants before a kernel; empty where it wants none.
 *
 * @param features The features the device was granted
 */
export async function findPreamble(device: GPUDevice, features: ReadonlySet<string>): Promise<string> {
  if (!features.has("subgroups")) return "";
  device.pushErrorScope("validation");
  device.createShaderModule({ code: `${ENABLE_SUBGROUPS}@compute @workgroup_size(1) fn main() {}` });
  return await device.popErrorScope() ? "" : TINT_PREAMBLE;
}
