// Means of ranges of rows: out[s, :] = mean of x[t, :] over start[s] <= t < end[s]; zeros for an empty range.
//
// Bindings: x [T, H], start and end i32 [S], out [S, H]. A thread makes one unit of one row. Ranges lie within the rows of x.
// Constants: THREADS, VECTOR (4; or 1, where H is not a multiple of 4).

struct Size { total: u32, units: u32 } // total: units of all rows

//#if VECTOR == 4
alias Unit = vec4<f32>;
//#else
alias Unit = f32;
//#end

@group(0) @binding(0) var<storage, read> x: array<Unit>;
@group(0) @binding(1) var<storage, read> start: array<i32>;
@group(0) @binding(2) var<storage, read> end: array<i32>;
@group(0) @binding(3) var<storage, read_write> out: array<Unit>;
@group(1) @binding(0) var<uniform> size: Size;

@compute @workgroup_size($THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let i = (group.x + group.y * groups.x) * $(THREADS)u + thread;
  if (i >= size.total) { return; }
  let row = i / size.units;
  let first = start[row];
  let last = max(first, end[row]);
  let share = 1.0 / f32(max(1, last - first));
  var sum = Unit();
  for (var t = first; t < last; t++) { sum += x[u32(t) * size.units + i % size.units]; }
  out[i] = sum * share;
}
