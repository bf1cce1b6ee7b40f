// Root mean square norm (Zhang and Sennrich, arXiv 1910.07467): y[t, h] = w[h] * x[t, h] / sqrt(mean_h(x[t, h]^2) + epsilon).
//
// Bindings: x [T, H], w [H] (WEIGHT: its storage), y [T, H]. A workgroup of THREADS makes one row.
//
// Constants: WEIGHT, SUBGROUP (1: the workgroup is one subgroup of 8; 0: 64 threads and workgroup memory), THREADS,
// VECTOR (4; or 1, where H is not a multiple of 4), FACTOR (what stands for w[h]: the weight, or 1 + the weight).

struct Size { rows: u32, units: u32, width: f32, epsilon: f32 }

//#if VECTOR == 4
alias Unit = vec4<f32>;
//#else
alias Unit = f32;
//#end

@group(0) @binding(0) var<storage, read> x: array<Unit>;
//#include weights with VALUES = VECTOR
@group(0) @binding(2) var<storage, read_write> y: array<Unit>;
@group(1) @binding(0) var<uniform> size: Size;

//#include row_sum

@compute @workgroup_size($THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let row = group.x + group.y * groups.x;
  if (row >= size.rows) { return; }
  let first = row * size.units;
  var squares = Unit();
  for (var u = thread; u < size.units; u += $(4 * THREADS)u) {
//#for i in 0..4
    if (u + $(i * THREADS)u < size.units) {
      let value = x[first + u + $(i * THREADS)u];
      squares += value * value;
    }
//#end
  }
//#if VECTOR == 4
  let total = sum_over_threads((squares.x + squares.y) + (squares.z + squares.w), thread);
//#else
  let total = sum_over_threads(squares, thread);
//#end
  let scale = 1.0 / sqrt(total / size.width + size.epsilon);
  for (var u = thread; u < size.units; u += $(4 * THREADS)u) {
//#for i in 0..4
    if (u + $(i * THREADS)u < size.units) {
      let at = u + $(i * THREADS)u;
      y[first + at] = $FACTOR * (x[first + at] * scale);
    }
//#end
  }
}
