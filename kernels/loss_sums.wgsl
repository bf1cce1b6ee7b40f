// state[first + k] = keep * state[first + k] + sum over all positions of loss k; with keep = 0 the state is not read.
//
// Bindings: values [chunks, K * chunk_rows] (each chunk K rows of chunk_rows), state [first + K or more].
// One workgroup of 64 a loss: each thread sums its positions, then a tree of fixed order.

struct Size { chunks: u32, value_count: u32, chunk_rows: u32, keep: u32, first: u32 }

@group(0) @binding(0) var<storage, read> values: array<f32>;
@group(0) @binding(1) var<storage, read_write> state: array<f32>;
@group(1) @binding(0) var<uniform> size: Size;
@group(1) @binding(1) var<uniform> step: array<vec4<f32>, 64>;

var<workgroup> partial: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let k = group.x;
  var sum = 0.0;
  for (var c = 0u; c < size.chunks; c++) {
    let base = (c * size.value_count + k) * size.chunk_rows;
    for (var r = thread; r < size.chunk_rows; r += 64u) { sum += values[base + r]; }
  }
  partial[thread] = sum;
//#for level in 0..6
  workgroupBarrier();
  if (thread < (32u >> $(level)u)) { partial[thread] += partial[thread + (32u >> $(level)u)]; }
//#end
  if (thread == 0u) {
    let keep = step[size.keep / 4u][size.keep % 4u];
    let at = size.first + k;
    if (keep == 0.0) { state[at] = partial[0]; } else { state[at] = keep * state[at] + partial[0]; }
  }
}
