// Random numbers from Philox 4x32-10 (Salmon et al., SC 2011) with the counter (vector of four, USE, 0, 0) and the key (key of this
// micro-batch, site).
//
// DRAW = dropout (USE 0): out = keep * x / (1 - rate).
// DRAW = normal (USE 1): out ~ N(0, 1), two numbers from two words (Box and Muller, 1958).
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

// Both halves of a 32 x 32 bit product: (high, low).
fn multiply(a: u32, b: u32) -> vec2<u32> {
  let a0 = a & 0xffffu;
  let a1 = a >> 16u;
  let b0 = b & 0xffffu;
  let b1 = b >> 16u;
  let low = a0 * b0;
  let middle1 = a1 * b0 + (low >> 16u);
  let middle2 = a0 * b1 + (middle1 & 0xffffu);
  return vec2<u32>(a1 * b1 + (middle1 >> 16u) + (middle2 >> 16u), a * b);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let i = (group.x + group.y * groups.x) * 64u + thread;
  if (i >= size.vectors) { return; }
//#if DRAW == dropout
  var c = vec4<u32>(i, 0u, 0u, 0u);
//#else
  var c = vec4<u32>(i, 1u, 0u, 0u);
//#end
  var k = vec2<u32>(bitcast<u32>(step[size.key / 4u][size.key % 4u]), size.site);
//#for round in 0..10
  {
    let p = multiply(0xd2511f53u, c.x);
    let q = multiply(0xcd9e8d57u, c.z);
    c = vec4<u32>(q.x ^ c.y ^ k.x, q.y, p.x ^ c.w ^ k.y, p.y);
    k += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
  }
//#end
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
