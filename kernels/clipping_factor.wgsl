// What the optimiser multiplies the gradients by: min(1, clip / (norm + 1e-6)), or 0 where one of them is not finite.
//
// Bindings: norm (norm, flag), factor [1]. One invocation. Constant: CLIP (1: gradients are clipped; 0: the factor is 1 or 0).

struct Size { clip: f32 }

@group(0) @binding(0) var<storage, read> norm: array<f32>;
@group(0) @binding(1) var<storage, read_write> factor: array<f32>;
@group(1) @binding(0) var<uniform> size: Size;

@compute @workgroup_size(1)
fn main() {
//#if CLIP
  let clipped = min(1.0, size.clip / (norm[0] + 1e-6));
//#else
  let clipped = 1.0;
//#end
  if (norm[1] != 0.0) {
    factor[0] = 0.0;
  } else {
    factor[0] = clipped;
  }
}
