// Linear combination of INPUTS (1 to 4) tensors of one shape: out = sum_i factors[i] * x_i.
//
// Bindings: x0 .. (INPUTS vectors of four), out. A workgroup of 64 handles 256 vectors of four.

struct Size {
  vectors: u32, groups: u32, pad0: u32, pad1: u32,
  factors: vec4<f32>,
}

//#for i in 0..INPUTS
@group(0) @binding($i) var<storage, read> x$i: array<vec4<f32>>;
//#end
@group(0) @binding($INPUTS) var<storage, read_write> out: array<vec4<f32>>;
@group(1) @binding(0) var<uniform> size: Size;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let index = group.x + group.y * groups.x;
  if (index >= size.groups) { return; }
  let at = index * 256u + thread;
//#for part in 0..4
  if (at + $(part * 64)u < size.vectors) {
    let i = at + $(part * 64)u;
    out[i] = size.factors[0] * x0[i]
//#for i in 1..INPUTS
      + size.factors[$i] * x$i[i]
//#end
    ;
  }
//#end
}
