// Rows of a table by index: out[t, :] = table[indices[t], :]. An index outside the table gives a row of zeros.
//
// Bindings: indices i32 [T], the table w [count, H] (WEIGHT: its storage), out f32 [T, H]. The table may be one part of a larger
// one: rows first .. first + count of all_rows. Each dispatch then writes the rows that lie in its part, the first of them also
// those that lie nowhere.
//
// A workgroup of THREADS makes one row. Constants: WEIGHT, THREADS, VECTOR (4; or 1, where H is not a multiple of 4).

struct Size { rows: u32, units: u32, first: u32, count: u32, all_rows: u32 }

//#if VECTOR == 4
alias Unit = vec4<f32>;
//#else
alias Unit = f32;
//#end

@group(0) @binding(0) var<storage, read> indices: array<i32>;
//#include weights with VALUES = VECTOR
@group(0) @binding(2) var<storage, read_write> out: array<Unit>;
@group(1) @binding(0) var<uniform> size: Size;

@compute @workgroup_size($THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let row = group.x + group.y * groups.x;
  if (row >= size.rows) { return; }
  // A negative index becomes a large one, outside every table.
  let index = bitcast<u32>(indices[row]);
  let inside = index >= size.first && index - size.first < size.count;
  let nowhere = size.first == 0u && index >= size.all_rows;
  if (!inside && !nowhere) { return; }
  let source = select(0u, (index - size.first) * size.units, inside);
  let place = row * size.units;
  for (var u = thread; u < size.units; u += $(THREADS)u) {
    out[place + u] = select(Unit(), weight(source + u), inside);
  }
}
