// Root mean square norm (Zhang and Sennrich, arXiv 1910.07467): y[t, h] = w[h] * x[t, h] / sqrt(mean_h(x[t, h]^2) + epsilon).
//
// Bindings: x [T, H], w [H] (WEIGHT: its storage), y [T, H]. A workgroup of THREADS makes one row.
//
// Constants: WEIGHT, SUBGROUP (1: the workgroup is one subgroup of 8; 0: 2^LEVELS threads and workgroup memory), THREADS, LEVELS,
// VECTOR (4; or 1, where H is not a multiple of 4), HELD (units of a row that each thread keeps in registers, so that it is read once;
// 0: a row is read again wherever it is needed), FACTOR (what stands for w[h]: the weight, or 1 + the weight).

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
//#if HELD > 0
//#for i in 0..HELD
  var value$i = Unit();
  if (thread + $(i * THREADS)u < size.units) { value$i = x[first + thread + $(i * THREADS)u]; }
  squares += value$i * value$i;
//#end
//#else
  for (var u = thread; u < size.units; u += $(4 * THREADS)u) {
//#for i in 0..4
    if (u + $(i * THREADS)u < size.units) {
      let value = x[first + u + $(i * THREADS)u];
      squares += value * value;
    }
//#end
  }
//#end
//#if VECTOR == 4
  let total = sum_over_threads((squares.x + squares.y) + (squares.z + squares.w), thread);
//#else
  let total = sum_over_threads(squares, thread);
//#end
  let scale = 1.0 / sqrt(total / size.width + size.epsilon);
//#if HELD > 0
//#for i in 0..HELD
  if (thread + $(i * THREADS)u < size.units) {
    let at = thread + $(i * THREADS)u;
    y[first + at] = $FACTOR * (value$i * scale);
  }
//#end
//#else
  for (var u = thread; u < size.units; u += $(4 * THREADS)u) {
//#for i in 0..4
    if (u + $(i * THREADS)u < size.units) {
      let at = u + $(i * THREADS)u;
      y[first + at] = $FACTOR * (x[first + at] * scale);
    }
//#end
  }
//#end
}
