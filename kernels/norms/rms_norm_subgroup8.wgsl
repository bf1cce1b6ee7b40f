// Root mean square norm of short rows, and its backward pass, for software adapters: as rms_norm.wgsl and rms_norm_backward.wgsl, with all
// of a row in registers. There a workgroup costs as much as such a row, so each makes ROWS of them, and reads the weight once.
//
//   y[t, h] = w[h] * x[t, h] * r,  dx[t, h] = r * (w[h] * dy[t, h] - x[t, h] * r^2 * mean_h(w * dy[t, :] * x[t, :])) [+ addend[t, h]]
//   with r = 1 / sqrt(mean_h(x^2) + epsilon)
//
// Bindings: x [T, H], w [H] (WEIGHT: its storage), y [T, H]; with BACKWARD x, w, dy [T, H], with ADDEND addend [T, H], dx [T, H],
// scale [T] (= r). A workgroup is one subgroup of 8 lanes.
//
// Constants: BACKWARD, ADDEND, WEIGHT, ROWS, UNITS (of a row, in each lane), WHOLE (1: 8 * UNITS is all of a row; 0: some lanes have one less),
// VECTOR (4; or 1, where H is not a multiple of 4), FACTOR (what stands for w[h]: the weight, or 1 + the weight).

struct Size { rows: u32, units: u32, width: f32, epsilon: f32 }

//#if VECTOR == 4
alias Unit = vec4<f32>;
//#else
alias Unit = f32;
//#end

@group(0) @binding(0) var<storage, read> x: array<Unit>;
//#include weights with VALUES = VECTOR
//#if BACKWARD
@group(0) @binding(2) var<storage, read> dy: array<Unit>;
//#if ADDEND
@group(0) @binding(3) var<storage, read> addend: array<Unit>;
//#end
@group(0) @binding($(3 + ADDEND)) var<storage, read_write> dx: array<Unit>;
@group(0) @binding($(4 + ADDEND)) var<storage, read_write> scale: array<f32>;
//#else
@group(0) @binding(2) var<storage, read_write> y: array<Unit>;
//#end
@group(1) @binding(0) var<uniform> size: Size;

fn factor(at: u32) -> Unit { return $FACTOR; }

fn sum_of(values: Unit) -> f32 {
//#if VECTOR == 4
  return subgroupAdd((values.x + values.y) + (values.z + values.w));
//#else
  return subgroupAdd(values);
//#end
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(subgroup_invocation_id) lane: u32) {
  let begin = (group.x + group.y * groups.x) * $(ROWS)u;
  let end = min(begin + $(ROWS)u, size.rows);
//#for i in 0..UNITS
  let at$i = lane + $(8 * i)u;
  let w$i = factor(at$i);
//#end
//#if !WHOLE
  // What is beyond the row may be anything, NaN too: chosen, not multiplied by zero.
  let last = at$(UNITS - 1) < size.units;
//#end
  for (var row = begin; row < end; row++) {
    let first = row * size.units;
    var squares = Unit();
//#if BACKWARD
    var products = Unit();
//#end
//#for i in 0..UNITS
//#if WHOLE || i < UNITS - 1
    let x$i = x[first + at$i];
//#else
    let x$i = select(Unit(), x[first + at$i], last);
//#end
    squares += x$i * x$i;
//#if BACKWARD
//#if WHOLE || i < UNITS - 1
    let g$i = w$i * dy[first + at$i];
//#else
    let g$i = select(Unit(), w$i * dy[first + at$i], last);
//#end
    products += x$i * g$i;
//#end
//#end
    let r = 1.0 / sqrt(sum_of(squares) / size.width + size.epsilon);
//#if BACKWARD
    let along = r * r * sum_of(products) / size.width;
    if (lane == 0u) { scale[row] = r; }
//#end
//#for i in 0..UNITS
//#if WHOLE || i < UNITS - 1
    {
//#else
    if (last) {
//#end
      let value = x$i;
//#if BACKWARD
//#if ADDEND
      dx[first + at$i] = r * (g$i - value * along) + addend[first + at$i];
//#else
      dx[first + at$i] = r * (g$i - value * along);
//#end
//#else
      y[first + at$i] = w$i * (value * r);
//#end
    }
//#end
  }
}
