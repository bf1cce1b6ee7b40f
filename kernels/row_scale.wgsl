// out[t, :] = factors[t] * x[t, :]. Bindings: x [T, H], factors [T], out [T, H], with H a multiple of 4.
// A workgroup of 64 handles 64 vectors of four.

struct Size { vectors: u32, groups: u32, width: u32 }

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> factors: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;
@group(1) @binding(0) var<uniform> size: Size;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let i = (group.x + group.y * groups.x) * 64u + thread;
  if (i >= size.vectors) { return; }
  out[i] = factors[i / size.width] * x[i];
}
