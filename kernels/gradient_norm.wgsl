// The norm of a flat tensor, and whether any of it is NaN or infinite, by a factor of 16384 at each level.
//
// FIRST 1: reads f32 elements; 0: reads pairs (sum of squares, flag) that an earlier level has made.
// LAST 1: writes (square root of the sum, flag); 0: writes pairs from `first` on.
//
// Sums go pairwise, in a fixed order, so the error grows with the logarithm of the count. NaN is found by its bits: compilers
// fold x != x to false.
//
// Bindings: x, out. A workgroup of 64 makes one pair: a thread takes 64 vectors of four elements, or 256 pairs.

struct Size { elements: u32, groups: u32, first: u32 }

//#if FIRST
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
//#else
@group(0) @binding(0) var<storage, read> x: array<vec2<f32>>;
//#end
@group(0) @binding(1) var<storage, read_write> out: array<vec2<f32>>;
@group(1) @binding(0) var<uniform> size: Size;

var<workgroup> shared_sums: array<vec2<f32>, 64>;

// (sum, flag) of two parts.
fn joined(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
  return vec2<f32>(a.x + b.x, max(a.y, b.y));
}

//#if FIRST
// (sum of squares, flag) of vector i; elements beyond the end count as zero, whatever the padding holds.
fn piece(i: u32) -> vec2<f32> {
  if (4u * i >= size.elements) { return vec2<f32>(); }
  let inside = vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(size.elements);
  let v = select(vec4<f32>(), x[i], inside);
  let bad = (bitcast<vec4<u32>>(v) & vec4<u32>(0x7f800000u)) == vec4<u32>(0x7f800000u);
  let squares = v * v;
  return vec2<f32>((squares.x + squares.y) + (squares.z + squares.w), select(0.0, 1.0, any(bad)));
}
//#else
fn piece(i: u32) -> vec2<f32> {
  if (i >= size.elements) { return vec2<f32>(); }
  return x[i];
}
//#end

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let index = group.x + group.y * groups.x;
  if (index >= size.groups) { return; }
//#if FIRST
  let pieces = 4096u;
//#else
  let pieces = 16384u;
//#end
  var total = vec2<f32>();
  for (var turn = 0u; turn < pieces; turn += 512u) {
    let i = index * pieces + turn + thread;
//#for k in 0..8
    let p$k = piece(i + $(k * 64)u);
//#end
    total = joined(total, joined(joined(joined(p0, p1), joined(p2, p3)), joined(joined(p4, p5), joined(p6, p7))));
  }
  shared_sums[thread] = total;
  workgroupBarrier();
//#for level in 0..6
  if (thread < (32u >> $(level)u)) {
    shared_sums[thread] = joined(shared_sums[thread], shared_sums[thread + (32u >> $(level)u)]);
  }
  workgroupBarrier();
//#end
  if (thread == 0u) {
//#if LAST
    out[0] = vec2<f32>(sqrt(shared_sums[0].x), shared_sums[0].y);
//#else
    out[size.first + index] = shared_sums[0];
//#end
  }
}
