// Every element of out is one number: a step scalar, or (CONSTANT) a number of the size struct.
//
// Binding: out (vectors of four). A workgroup of 64 handles 64 vectors.

//#if CONSTANT
struct Size { vectors: u32, groups: u32, value: f32 }
//#else
struct Size { vectors: u32, groups: u32, value: u32 }
//#end

@group(0) @binding(0) var<storage, read_write> out: array<vec4<f32>>;
@group(1) @binding(0) var<uniform> size: Size;
//#if !CONSTANT
@group(1) @binding(1) var<uniform> step: array<vec4<f32>, 64>;
//#end

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let i = (group.x + group.y * groups.x) * 64u + thread;
  if (i >= size.vectors) { return; }
//#if CONSTANT
  out[i] = vec4<f32>(size.value);
//#else
  out[i] = vec4<f32>(step[size.value / 4u][size.value % 4u]);
//#end
}
