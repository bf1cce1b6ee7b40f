// Columns of a matrix into columns of another, group by group: out[t, g, to + c] = x[t, g, from + c] for c < width.
//
// x is [T, groups, in_width], out is [T, groups, out_width]; what of out lies beside these columns stays as it is.
//
// Bindings: x (without FILL), out. A workgroup of 64 handles 256 units, a unit being VECTOR neighbouring columns; all widths and places
// count in units. Constants: VECTOR (4; or 1, where a width or a place is not a multiple of 4), FILL (1: zeros, and no x).

struct Size { units: u32, groups: u32, width: u32, in_width: u32, from_column: u32, out_width: u32, to_column: u32 }

//#if VECTOR == 4
alias Unit = vec4<f32>;
//#else
alias Unit = f32;
//#end

//#if FILL
@group(0) @binding(0) var<storage, read_write> out: array<Unit>;
//#else
@group(0) @binding(0) var<storage, read> x: array<Unit>;
@group(0) @binding(1) var<storage, read_write> out: array<Unit>;
//#end
@group(1) @binding(0) var<uniform> size: Size;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let index = group.x + group.y * groups.x;
  if (index >= size.groups) { return; }
//#for part in 0..4
  {
    let i = index * 256u + $(part * 64)u + thread;
    if (i < size.units) {
      let row = i / size.width;
      let c = i % size.width;
//#if FILL
      out[row * size.out_width + size.to_column + c] = Unit();
//#else
      out[row * size.out_width + size.to_column + c] = x[row * size.in_width + size.from_column + c];
//#end
    }
  }
//#end
}
