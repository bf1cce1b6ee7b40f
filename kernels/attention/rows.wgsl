// What the backward pass of attention needs to know of each query, gathered into one binding; any adapter.
//
//   rows[h, i]  = (logsumexp[h, i] * log2(e), delta[h, i], start[i], end[i]),  delta = sum_d dout[i, h, d] out[i, h, d]
//   blocks[b]   = smallest start and largest end of the queries 16 b ... 16 b + 15, so that keys skip queries that never see them
//
// delta is rowsum(dP * P) (Dao et al., arXiv 2205.14135, B.4). Floats are kept as their bits. An empty range becomes (2^31 - 1, 0).
//
// Bindings: out and dout [T, heads * D], logsumexp [heads, T], start and end i32 [T], rows [heads, T] of 4 words,
// blocks [ceil(T / 16)] of 2 words. A workgroup of 64 threads handles 64 queries of one head. Limits: D a multiple of 4.

struct Size {
  queries: u32, keys: u32, heads: u32, vectors: u32, // D / 4
  tiles: u32, total: u32, pad0: u32, pad1: u32,      // tiles of queries; workgroups
}

@group(0) @binding(0) var<storage, read> out: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> logsumexp: array<f32>;
@group(0) @binding(3) var<storage, read> start: array<i32>;
@group(0) @binding(4) var<storage, read> end: array<i32>;
@group(0) @binding(5) var<storage, read_write> rows: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read_write> blocks: array<vec2<i32>>;
@group(1) @binding(0) var<uniform> size: Size;

var<workgroup> firsts: array<i32, 64>;
var<workgroup> lasts: array<i32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let tile = group.x + group.y * groups.x;
  if (tile >= size.total) { return; }
  // The z is always 0. A loop bound that is plainly a uniform makes Mesa compile the kernel anew for each value of it.
  let vectors = size.vectors + group.z;
  let head = tile / size.tiles;
  let row = tile % size.tiles * 64u + thread;
  var first = 0x7fffffff;
  var last = 0;
  if (row < size.queries) {
    let from_key = max(start[row], 0);
    let to_key = min(end[row], i32(size.keys));
    if (from_key < to_key) {
      first = from_key;
      last = to_key;
    }
    let base = (row * size.heads + head) * size.vectors;
    var delta = 0.0;
    for (var t = 0u; t < vectors; t++) { delta += dot(out[base + t], dout[base + t]); }
    let index = head * size.queries + row;
    rows[index] = vec4<u32>(
      bitcast<u32>(logsumexp[index] * 1.4426950408889634), bitcast<u32>(delta), bitcast<u32>(first), bitcast<u32>(last));
  }
  firsts[thread] = first;
  lasts[thread] = last;
  workgroupBarrier();
  if (head == 0u && thread % 16u == 0u && row < size.queries) {
    for (var i = 1u; i < 16u; i++) {
      first = min(first, firsts[thread + i]);
      last = max(last, lasts[thread + i]);
    }
    blocks[row / 16u] = vec2<i32>(first, last);
  }
}
