// Writes rows to their places in a larger tensor: state[slots[b], :] = rows[b, :]. A slot outside the state writes nothing.
// Slots must differ: of two rows with one slot either may win.
//
// Bindings: rows [B, W], slots i32 [B], state [S, W]. A workgroup of THREADS writes one row.
// Constants: THREADS, VECTOR (4; or 1, where W is not a multiple of 4).

struct Size { rows: u32, units: u32, slots: u32 }

//#if VECTOR == 4
alias Unit = vec4<f32>;
//#else
alias Unit = f32;
//#end

@group(0) @binding(0) var<storage, read> rows: array<Unit>;
@group(0) @binding(1) var<storage, read> slots: array<i32>;
@group(0) @binding(2) var<storage, read_write> state: array<Unit>;
@group(1) @binding(0) var<uniform> size: Size;

@compute @workgroup_size($THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let row = group.x + group.y * groups.x;
  if (row >= size.rows) { return; }
  let slot = bitcast<u32>(slots[row]);
  if (slot >= size.slots) { return; }
  for (var u = thread; u < size.units; u += $(THREADS)u) {
    state[slot * size.units + u] = rows[row * size.units + u];
  }
}
