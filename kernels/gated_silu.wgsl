// Gated SiLU: out = silu(gate) * up, elementwise, with silu(g) = g * sigmoid(g).
//
// Bindings: gate, up, out (vectors of four). A workgroup of 64 handles 256 vectors.

struct Size { vectors: u32, groups: u32 }

@group(0) @binding(0) var<storage, read> gate: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> up: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;
@group(1) @binding(0) var<uniform> size: Size;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let index = group.x + group.y * groups.x;
  if (index >= size.groups) { return; }
//#for part in 0..4
  {
    let i = index * 256u + $(part * 64)u + thread;
    if (i < size.vectors) {
      let g = gate[i];
      // Below -80 the sigmoid is less than 2e-35; exp(-g) would overflow soon after.
      let s = select(1.0 / (1.0 + exp(-g)), vec4<f32>(), g < vec4<f32>(-80.0));
      out[i] = g * s * up[i];
    }
  }
//#end
}
