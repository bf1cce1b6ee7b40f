// A weight in its storage as f32, row after row: out[i] = value i of w. Bindings: out, w (WEIGHT: its storage), both from the same row on.
// A workgroup of THREADS makes 4 THREADS units. Constants: WEIGHT, THREADS, VECTOR (values of a unit: 4; or 1, where rows are not a multiple of 4).

struct Size { units: u32, groups: u32 }

@group(0) @binding(0) var<storage, read_write> out: array<Weight>;
//#include weights with VALUES = VECTOR
@group(1) @binding(0) var<uniform> size: Size;

@compute @workgroup_size($THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let index = group.x + group.y * groups.x;
  if (index >= size.groups) { return; }
//#for part in 0..4
  {
    let i = index * $(4 * THREADS)u + $part * $(THREADS)u + thread;
    if (i < size.units) { out[i] = weight(i); }
  }
//#end
}
