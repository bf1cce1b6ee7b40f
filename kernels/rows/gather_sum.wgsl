// Sums of rows by index: out[n, :] = sum_j x[index[n, j], :] over the EACH indices of n in order. An index outside x adds nothing.
//
// Bindings: x [R, W], index i32 [N, EACH], out [N, W]. A workgroup of 64 handles 256 units, a unit being VECTOR neighbouring columns.
// Constants: VECTOR (4; or 1, where W is not a multiple of 4).

struct Size { units: u32, groups: u32, width: u32, rows: u32, each: u32 }

//#if VECTOR == 4
alias Unit = vec4<f32>;
//#else
alias Unit = f32;
//#end

@group(0) @binding(0) var<storage, read> x: array<Unit>;
@group(0) @binding(1) var<storage, read> index: array<i32>;
@group(0) @binding(2) var<storage, read_write> out: array<Unit>;
@group(1) @binding(0) var<uniform> size: Size;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let place = group.x + group.y * groups.x;
  if (place >= size.groups) { return; }
//#for part in 0..4
  {
    let i = place * 256u + $(part * 64)u + thread;
    if (i < size.units) {
      let n = i / size.width;
      let c = i % size.width;
      var sum = Unit();
      for (var j = 0u; j < size.each + group.z; j++) {
        // A negative index becomes a large one.
        let row = bitcast<u32>(index[n * size.each + j]);
        if (row < size.rows) { sum += x[row * size.width + c]; }
      }
      out[i] = sum;
    }
  }
//#end
}
