// The softmax over the K largest elements of each row, 0 elsewhere; of equal elements the first counts as the larger.
//
// Bindings: x [N, E], out [N, E]. A workgroup of 64 threads handles 64 rows, a thread a row. Rows are short: E^2 comparisons.

struct Size { rows: u32, groups: u32, width: u32, chosen: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(1) @binding(0) var<uniform> size: Size;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let row = (group.x + group.y * groups.x) * 64u + thread;
  if (row >= size.rows) { return; }
  let begin = row * size.width;
  let end = begin + size.width;
  var top = x[begin];
  for (var i = begin; i < end; i++) { top = max(top, x[i]); }
  var sum = 0.0;
  for (var i = begin; i < end; i++) {
    let v = x[i];
    var larger = 0u;
    for (var j = begin; j < end; j++) {
      let other = x[j];
      larger += u32(other > v || (other == v && j < i));
    }
    let e = select(0.0, exp(v - top), larger < size.chosen);
    out[i] = e;
    sum += e;
  }
  for (var i = begin; i < end; i++) { out[i] /= sum; }
}
