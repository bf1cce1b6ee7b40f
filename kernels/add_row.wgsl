// out[t, n] = x[t, n] + w[n]. Bindings: x [T, N], w [N] (WEIGHT: its storage), out [T, N].
// A workgroup of 64 handles 256 units. Constants: WEIGHT, VECTOR (elements of a unit: 4; or 1, where N is not a multiple of 4).

struct Size { units: u32, groups: u32, width: u32 } // width: units of a row

//#if VECTOR == 4
alias Unit = vec4<f32>;
//#else
alias Unit = f32;
//#end

@group(0) @binding(0) var<storage, read> x: array<Unit>;
//#include weights with VALUES = VECTOR
@group(0) @binding(2) var<storage, read_write> out: array<Unit>;
@group(1) @binding(0) var<uniform> size: Size;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let index = group.x + group.y * groups.x;
  if (index >= size.groups) { return; }
//#for part in 0..4
  {
    let i = index * 256u + $(part * 64)u + thread;
    if (i < size.units) { out[i] = x[i] + weight(i % size.width); }
  }
//#end
}
