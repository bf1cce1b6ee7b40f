/**
 * What buffers are for, in WebGPU's bits (https://www.w3.org/TR/webgpu/#buffer-usage). The numbers are part of the standard; the globals
 * that name them are missing where a page has no WebGPU, and belong to one implementation of several.
 *
 * @module
 */
const [READ, COPY_SRC, COPY_DST, UNIFORM, STORAGE, RESOLVE] = [0x1, 0x4, 0x8, 0x40, 0x80, 0x200];

/** `GPUMapMode.READ`: the host reads. */
export const MAP_READ = 0x1;

/** Uses of buffers, for {@linkcode Gpu.createBuffer}. */
export const BUFFER_USAGE = {
  /** Bound by kernels, copied to and from. */
  storage: STORAGE | COPY_DST | COPY_SRC,
  /** Small numbers that kernels read. */
  uniform: UNIFORM | COPY_DST | COPY_SRC,
  /** Copied to by the GPU, read by the host. */
  readBack: READ | COPY_DST,
  /** Times of kernels are put there, to be copied to where the host reads. */
  timestamps: RESOLVE | COPY_SRC,
} as const;
