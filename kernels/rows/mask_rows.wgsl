// out[t] = x[t] where bit BIT of flags[t] is set, else 0, whatever x[t] is.
//
// Bindings: x [T], flags i32 [T], out [T]. A workgroup of 64 handles 64 elements. Constants: BIT.

struct Size { elements: u32, groups: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> flags: array<i32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(1) @binding(0) var<uniform> size: Size;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let t = (group.x + group.y * groups.x) * 64u + thread;
  if (t >= size.elements) { return; }
  out[t] = select(0.0, x[t], ((flags[t] >> $(BIT)u) & 1) != 0);
}
