// Backward pass of the root mean square norm to its input. With r = 1 / sqrt(mean_h(x^2) + epsilon), g = w * dy:
//
//   dx[t, h] = r * (g[t, h] - x[t, h] * r^2 * mean_h(g[t, :] * x[t, :])) [+ addend[t, h]]
//
// r is computed again: the sweep that sums g * x reads x anyway. It is also written out, for the gradient of the weight.
//
// Bindings: x [T, H], w [H] (WEIGHT: its storage), dy [T, H], with ADDEND addend [T, H], dx [T, H], scale [T] (= r).
// A workgroup of THREADS makes one row.
//
// Constants: ADDEND, WEIGHT, SUBGROUP (1: the workgroup is one subgroup of 8; 0: 2^LEVELS threads and workgroup memory), THREADS, LEVELS,
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
@group(0) @binding(2) var<storage, read> dy: array<Unit>;
//#if ADDEND
@group(0) @binding(3) var<storage, read> addend: array<Unit>;
//#end
@group(0) @binding($(3 + ADDEND)) var<storage, read_write> dx: array<Unit>;
@group(0) @binding($(4 + ADDEND)) var<storage, read_write> scale: array<f32>;
@group(1) @binding(0) var<uniform> size: Size;

//#include row_sum

@compute @workgroup_size($THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let row = group.x + group.y * groups.x;
  if (row >= size.rows) { return; }
  let first = row * size.units;
  var squares = Unit();
  var products = Unit();
//#if HELD > 0
//#for i in 0..HELD
  var value$i = Unit();
  var gradient$i = Unit();
  if (thread + $(i * THREADS)u < size.units) {
    let at = thread + $(i * THREADS)u;
    value$i = x[first + at];
    gradient$i = $FACTOR * dy[first + at];
  }
  squares += value$i * value$i;
  products += value$i * gradient$i;
//#end
//#else
  for (var u = thread; u < size.units; u += $(4 * THREADS)u) {
//#for i in 0..4
    if (u + $(i * THREADS)u < size.units) {
      let at = u + $(i * THREADS)u;
      let value = x[first + at];
      squares += value * value;
      products += value * ($FACTOR * dy[first + at]);
    }
//#end
  }
//#end
//#if VECTOR == 4
  let lane_sums = vec2<f32>((squares.x + squares.y) + (squares.z + squares.w),
                            (products.x + products.y) + (products.z + products.w));
//#else
  let lane_sums = vec2<f32>(squares, products);
//#end
  let sums = sum_over_threads(lane_sums, thread);
  let r = 1.0 / sqrt(sums.x / size.width + size.epsilon);
  let along = r * r * sums.y / size.width;
//#if HELD > 0
//#for i in 0..HELD
  if (thread + $(i * THREADS)u < size.units) {
    let at = thread + $(i * THREADS)u;
//#if ADDEND
    dx[first + at] = r * (gradient$i - value$i * along) + addend[first + at];
//#else
    dx[first + at] = r * (gradient$i - value$i * along);
//#end
  }
//#end
//#else
  for (var u = thread; u < size.units; u += $(4 * THREADS)u) {
//#for i in 0..4
    if (u + $(i * THREADS)u < size.units) {
      let at = u + $(i * THREADS)u;
      let value = x[first + at];
//#if ADDEND
      dx[first + at] = r * ($FACTOR * dy[first + at] - value * along) + addend[first + at];
//#else
      dx[first + at] = r * ($FACTOR * dy[first + at] - value * along);
//#end
    }
//#end
  }
//#end
  if (thread == 0u) { scale[row] = r; }
}
