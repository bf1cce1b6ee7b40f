// out[i] = x[i] * w[i]. Bindings: x [R, C], w [R, C] (WEIGHT: its storage), out [R, C].
// All three may be the same part of larger ones. A workgroup of 64 handles 256 elements.

struct Size { elements: u32, groups: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
//#include weights with VALUES = 1
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(1) @binding(0) var<uniform> size: Size;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let index = group.x + group.y * groups.x;
  if (index >= size.groups) { return; }
//#for part in 0..4
  {
    let i = index * 256u + $(part * 64)u + thread;
    if (i < size.elements) { out[i] = x[i] * weight(i); }
  }
//#end
}
