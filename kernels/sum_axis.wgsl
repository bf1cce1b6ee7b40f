// Sums of a matrix x [T, N] over one axis, in fixed order.
//
// AXIS = rows: out[n] = sum_t x[t, n]; a thread a column, one workgroup 64 columns. Blocks of 256 rows are summed on their own: one long
// sum rounds each element to the size of all before it.
// AXIS = columns: out[t] = sum_n x[t, n]; a workgroup of 64 a row, each thread every 64th element, then a tree.

struct Size { rows: u32, columns: u32, groups: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(1) @binding(0) var<uniform> size: Size;

//#if AXIS == columns
var<workgroup> partial: array<f32, 64>;
//#end

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let index = group.x + group.y * groups.x;
  if (index >= size.groups) { return; }
//#if AXIS == rows
  let n = index * 64u + thread;
  if (n >= size.columns) { return; }
  var sum = 0.0;
  for (var block = 0u; block < size.rows; block += 256u) {
    let end = min(block + 256u, size.rows);
    var part = 0.0;
    for (var t = block; t < end; t++) { part += x[t * size.columns + n]; }
    sum += part;
  }
  out[n] = sum;
//#else
  var sum = 0.0;
  for (var n = thread; n < size.columns; n += 64u) { sum += x[index * size.columns + n]; }
  partial[thread] = sum;
//#for level in 0..6
  workgroupBarrier();
  if (thread < (32u >> $(level)u)) { partial[thread] += partial[thread + (32u >> $(level)u)]; }
//#end
  if (thread == 0u) { out[index] = partial[0]; }
//#end
}
