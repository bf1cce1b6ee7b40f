// Rows of a table by index: out[t, :] = table[indices[t], :]. An index outside the table gives a row of zeros.
//
// Bindings: table [count, H] (TABLE: f32, f16 or bf16), indices i32 [T], out f32 [T, H]. The table may be one part of a larger
// one: rows first .. first + count of all_rows. Each dispatch then writes the rows that lie in its part, the first of them also
// those that lie nowhere.
//
// A workgroup of THREADS makes one row. Constants: TABLE, THREADS, VECTOR (4; or 1, where H is not a multiple of 4).

struct Size { rows: u32, units: u32, first: u32, count: u32, all_rows: u32 }

//#if VECTOR == 4
alias Unit = vec4<f32>;
//#else
alias Unit = f32;
//#end

//#if TABLE == f32
@group(0) @binding(0) var<storage, read> table: array<Unit>;
//#else
//#if VECTOR == 4
@group(0) @binding(0) var<storage, read> table: array<vec2<u32>>;
//#else
@group(0) @binding(0) var<storage, read> table: array<u32>;
//#end
//#end
@group(0) @binding(1) var<storage, read> indices: array<i32>;
@group(0) @binding(2) var<storage, read_write> out: array<Unit>;
@group(1) @binding(0) var<uniform> size: Size;

fn entry(i: u32) -> Unit {
//#if TABLE == f32
  return table[i];
//#else
//#if VECTOR == 4
  let p = table[i];
//#if TABLE == f16
  return vec4<f32>(unpack2x16float(p.x), unpack2x16float(p.y));
//#else
  return bitcast<vec4<f32>>(vec4<u32>(p.x << 16u, p.x & 0xffff0000u, p.y << 16u, p.y & 0xffff0000u));
//#end
//#else
  let p = table[i / 2u];
//#if TABLE == f16
  return unpack2x16float(p)[i % 2u];
//#else
  return bitcast<f32>(select(p << 16u, p & 0xffff0000u, i % 2u == 1u));
//#end
//#end
//#end
}

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
    out[place + u] = select(Unit(), entry(source + u), inside);
  }
}
