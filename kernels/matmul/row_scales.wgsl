// Powers of two that bring the rows of a matrix into the middle of what f16 holds: the largest magnitude of each becomes one of 2^14 to 2^15.
//
//   scales[m] = (2^s, 2^-s / 64) with s = 14 - floor(log2(max_k |x[m, k]|)), at most 100; 64 is what tiled.wgsl multiplies w by
//
// Magnitudes are compared as integers, whose order is the same: a row with a NaN or an infinity keeps it.
//
// Constants: XV (values that are read at once: 1, or 4 where rows are a multiple of 4).

struct Size {
  m: u32, k: u32, // [M, K]
}

//#if XV == 4
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
//#else
@group(0) @binding(0) var<storage, read> x: array<u32>;
//#end
@group(0) @binding(1) var<storage, read_write> scales: array<vec2<f32>>;
@group(1) @binding(0) var<uniform> size: Size;

var<workgroup> largest: array<u32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let row = group.x + group.y * groups.x;
  if (row >= size.m) { return; }
  var most = 0u;
//#if XV == 4
  for (var k = thread; k < size.k / 4u; k += 64u) {
    let values = x[row * (size.k / 4u) + k] & vec4<u32>(0x7fffffffu);
    most = max(max(most, max(values.x, values.y)), max(values.z, values.w));
  }
//#else
  for (var k = thread; k < size.k; k += 64u) { most = max(most, x[row * size.k + k] & 0x7fffffffu); }
//#end
  largest[thread] = most;
  for (var reach = 32u; reach > 0u; reach /= 2u) {
    workgroupBarrier();
    if (thread < reach) { largest[thread] = max(largest[thread], largest[thread + reach]); }
  }
  if (thread > 0u) { return; }
  let shift = min(14 - (i32(largest[0] >> 23u) - 127), 100);
  scales[row] = vec2<f32>(bitcast<f32>(u32(127 + shift) << 23u), bitcast<f32>(u32(121 - shift) << 23u));
}
