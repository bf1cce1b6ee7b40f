/**
 * What planning needs to know of a device: its limits, what it can do and which kernel family suits it. A plain value, so a
 * plan can be made (and its bytes printed) where there is no GPU at all.
 *
 * @module
 */

/** Which family of kernels suits a device best. */
export type KernelFamily =
  /** One 8-lane subgroup a workgroup, no shared memory: Mesa's software Vulkan driver on a CPU. */
  | "subgroup8"
  /** Tiles in workgroup memory: hardware GPUs. */
  | "tiled";

/** WebGPU's name, as Chrome experiments with it, for products of small matrices that the lanes of a subgroup hold together. */
export const SUBGROUP_MATRIX = "chromium-experimental-subgroup-matrix";

/** A product of matrices that a subgroup does at once: [m, k] by [k, n]. */
export interface SubgroupMatrix {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  /** Of the factors, such as `f16`. */
  readonly componentType: string;
  /** Of the product, such as `f32`. */
  readonly resultComponentType: string;
}

/** A device as the planner sees it. Byte counts are bytes. */
export interface DeviceDescription {
  /** The driver's own name for the device. */
  readonly name: string;
  readonly family: KernelFamily;
  /** The device was granted `subgroups` and every subgroup has this many lanes; 0 when it was not or they vary. */
  readonly subgroupSize: number;
  readonly maxBufferSize: number;
  readonly maxBindingSize: number;
  readonly maxStorageBuffers: number;
  readonly maxWorkgroupsPerDimension: number;
  readonly maxWorkgroupMemory: number;
  readonly maxInvocations: number;
  /** Alignment of a storage or uniform binding's offset. */
  readonly offsetAlignment: number;
  /** Kernels that were found best here, by what they are for: see `tensor/variants.ts`. Absent where nothing was measured. */
  readonly kernels?: Readonly<Record<string, string>>;
  /** Whether the device was granted `shader-f16`; absent where no device was asked. */
  readonly shaderF16?: boolean;
  /** Whether a processor plays the device: what costs time there is another thing than on a GPU. */
  readonly software?: boolean;
  /** Products that its subgroups do at once; absent where the device was not granted {@linkcode SUBGROUP_MATRIX}. */
  readonly subgroupMatrices?: readonly SubgroupMatrix[];
}

/** The least that WebGPU guarantees, as a hardware GPU: what `estimate` plans for where no device is present. */
export const DEFAULT_DEVICE: DeviceDescription = {
  name: "WebGPU default limits",
  family: "tiled",
  subgroupSize: 0,
  maxBufferSize: 268_435_456,
  maxBindingSize: 134_217_728,
  maxStorageBuffers: 8,
  maxWorkgroupsPerDimension: 65_535,
  maxWorkgroupMemory: 16_384,
  maxInvocations: 256,
  offsetAlignment: 256,
};

/** A kernel as a device gets it. */
export interface KernelText {
  /** What it is and where it was met first. */
  readonly label: string;
  readonly family: KernelFamily;
  readonly wgsl: string;
}
