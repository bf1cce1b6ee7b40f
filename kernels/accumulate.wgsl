// state = keep * state + value, where keep is a step scalar; with keep = 0 the state is not read, so it may hold NaN.
//
// Bindings: value, state. A workgroup of 64 handles 256 elements; single elements, because what follows in the state's buffer
// belongs to another parameter. Constant: KEEPS (1: keep is 1, whatever the scalars).

struct Size { elements: u32, groups: u32, keep: u32 }

@group(0) @binding(0) var<storage, read> value: array<f32>;
@group(0) @binding(1) var<storage, read_write> state: array<f32>;
@group(1) @binding(0) var<uniform> size: Size;
@group(1) @binding(1) var<uniform> step: array<vec4<f32>, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let index = group.x + group.y * groups.x;
  if (index >= size.groups) { return; }
//#if KEEPS
  let keep = 1.0;
//#else
  let keep = step[size.keep / 4u][size.keep % 4u];
//#end
//#for part in 0..4
  {
    let i = index * 256u + $(part * 64)u + thread;
    if (i < size.elements) {
      if (keep == 0.0) { state[i] = value[i]; } else { state[i] = keep * state[i] + value[i]; }
    }
  }
//#end
}
