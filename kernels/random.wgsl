// Random numbers from Philox 4x32-10 (Salmon et al., SC 2011) with the counter (vector of four, PURPOSE, 0, 0) and the key (key of this
// micro-batch, site).
//
// DRAW = dropout (PURPOSE 0): out = keep * x / (1 - rate).
// DRAW = normal (PURPOSE 1): out ~ N(0, 1), two numbers from two words (Box and Muller, 1958).
//
// Bindings: x (dropout only), out (vectors of four). A workgroup of 64 handles 64 vectors.

//#if DRAW == dropout
struct Size { vectors: u32, groups: u32, site: u32, key: u32, threshold: u32, scale: f32 }
//#else
struct Size { vectors: u32, groups: u32, site: u32, key: u32 }
//#end

//#if DRAW == dropout
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<f32>>;
//#else
@group(0) @binding(0) var<storage, read_write> out: array<vec4<f32>>;
//#end
@group(1) @binding(0) var<uniform> size: Size;
@group(1) @binding(1) var<uniform> step: array<vec4<f32>, 64>;

//#include philox

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let i = (group.x + group.y * groups.x) * 64u + thread;
  if (i >= size.vectors) { return; }
//#if DRAW == dropout
  let purpose = 0u;
//#else
  let purpose = 1u;
//#end
  let c = philox(vec4<u32>(i, purpose, 0u, 0u), vec2<u32>(bitcast<u32>(step[size.key / 4u][size.key % 4u]), size.site));
//#if DRAW == dropout
  out[i] = select(vec4<f32>(), x[i] * size.scale, c >= vec4<u32>(size.threshold));
//#else
  // Middles of 2^32 steps of (0, 1), so that no logarithm is infinite.
  let unit = (vec4<f32>(c) + 0.5) * 2.3283064365386963e-10;
  let radius = sqrt(-2.0 * log(unit.xz));
  let angle = 6.283185307179586 * unit.yw;
  out[i] = vec4<f32>(radius.x * cos(angle.x), radius.x * sin(angle.x), radius.y * cos(angle.y), radius.y * sin(angle.y));
//#end
}
