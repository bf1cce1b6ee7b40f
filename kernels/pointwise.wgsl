// One scalar expression for every element of a tensor, over operands of the same shape, a row [N], a column [T, 1] or one number [1].
//
// Constants: BINDINGS (x0, x1, ... and out, of type ELEMENT), ELEMENT (vec4<f32> where the width is a multiple of 4, else f32),
// HELPERS (functions that the expression calls), LOADS, UNIFORM, LINES, RESULT (the expression, printed from the graph).
// A workgroup of 64 handles 64 elements; `column` counts in elements of that type.

struct Size {
  elements: u32, groups: u32, width: u32, pad: u32,
  scalars: array<vec4<u32>, 8>,
}

$BINDINGS
@group(1) @binding(0) var<uniform> size: Size;
@group(1) @binding(1) var<uniform> step: array<vec4<f32>, 64>;

fn scalar(i: u32) -> f32 {
  let index = size.scalars[i / 4u][i % 4u];
  return step[index / 4u][index % 4u];
}

$HELPERS

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let i = (group.x + group.y * groups.x) * 64u + thread;
  if (i >= size.elements) { return; }
  let row = i / size.width;
  let column = i % size.width;
$LOADS
$UNIFORM
$LINES
  out[i] = $ELEMENT($RESULT);
}
