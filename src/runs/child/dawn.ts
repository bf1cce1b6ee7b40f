/**
 * Dawn, the WebGPU of Chrome, as a package for programs outside of a browser.
 *
 * @module
 */

/** The package, pinned; `tint.lock` holds its integrity. */
export const DAWN = "npm:webgpu@0.6.2";
