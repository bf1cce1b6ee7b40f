// out[i] = x[i] * w[i]. Bindings: x [R, C], w [R, C] (WEIGHT: f32, f16 or bf16), out [R, C].
// All three may be the same part of larger ones. A workgroup of 64 handles 256 elements.

struct Size { elements: u32, groups: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
//#if WEIGHT == f32
@group(0) @binding(1) var<storage, read> w: array<f32>;
//#else
@group(0) @binding(1) var<storage, read> w: array<u32>;
//#end
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(1) @binding(0) var<uniform> size: Size;

fn weight(i: u32) -> f32 {
//#if WEIGHT == f32
  return w[i];
//#else
//#if WEIGHT == f16
  return unpack2x16float(w[i / 2u])[i % 2u];
//#else
  return bitcast<f32>(select(w[i / 2u] << 16u, w[i / 2u] & 0xffff0000u, i % 2u == 1u));
//#end
//#end
}

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
