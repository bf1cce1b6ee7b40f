// out[t] = sum over TERMS of step[weight] * value of loss k at position t.
//
// Bindings: values [chunks, K * chunk_rows] (each chunk K rows of chunk_rows), out [T]. A workgroup of 64 handles 64 positions.

struct Size {
  total: u32, groups: u32, chunk_rows: u32, value_count: u32,
  terms: array<vec4<u32>, 15>, // k, index of the weight's step scalar
}

@group(0) @binding(0) var<storage, read> values: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(1) @binding(0) var<uniform> size: Size;
@group(1) @binding(1) var<uniform> step: array<vec4<f32>, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let t = (group.x + group.y * groups.x) * 64u + thread;
  if (t >= size.total) { return; }
  let base = t / size.chunk_rows * size.value_count;
  var sum = 0.0;
//#for i in 0..TERMS
  {
    let term = size.terms[$i];
    sum += step[term.y / 4u][term.y % 4u] * values[(base + term.x) * size.chunk_rows + t % size.chunk_rows];
  }
//#end
  out[t] = sum;
}
