// Layer norm without its bias (Ba et al., arXiv 1607.06450): y[t, h] = w[h] * (x[t, h] - m) / sqrt(v + epsilon), with m the mean of row
// t and v the mean of (x - m)^2 over it.
//
// Bindings: x [T, H], w [H] (WEIGHT: its storage), y [T, H]. A workgroup of THREADS makes one row.
//
// Constants: WEIGHT, SUBGROUP (1: the workgroup is one subgroup of 8; 0: 2^LEVELS threads and workgroup memory), THREADS, LEVELS,
// VECTOR (4; or 1, where H is not a multiple of 4), HELD (units of a row that each thread keeps in registers, so that it is read once;
// 0: a row is read again wherever it is needed),
// SUM (f32).

struct Size { rows: u32, units: u32, width: f32, epsilon: f32 }

//#if VECTOR == 4
alias Unit = vec4<f32>;

fn over_unit(v: Unit) -> f32 { return (v.x + v.y) + (v.z + v.w); }
//#else
alias Unit = f32;

fn over_unit(v: Unit) -> f32 { return v; }
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
  var values = Unit();
//#if HELD > 0
//#for i in 0..HELD
  var value$i = Unit();
  if (thread + $(i * THREADS)u < size.units) { value$i = x[first + thread + $(i * THREADS)u]; }
  values += value$i;
//#end
//#else
  for (var u = thread; u < size.units; u += $(THREADS)u) { values += x[first + u]; }
//#end
  let mean = sum_over_threads(over_unit(values), thread) / size.width;
  // The mean comes off first: a sum of squares less its square would lose the digits of a row far from zero.
  var squares = Unit();
//#if HELD > 0
//#for i in 0..HELD
  if (thread + $(i * THREADS)u < size.units) { squares += (value$i - mean) * (value$i - mean); }
//#end
//#else
  for (var u = thread; u < size.units; u += $(THREADS)u) {
    let value = x[first + u] - mean;
    squares += value * value;
  }
//#end
//#if !SUBGROUP
  // All have read the sum before the next one is begun.
  workgroupBarrier();
//#end
  let scale = 1.0 / sqrt(sum_over_threads(over_unit(squares), thread) / size.width + size.epsilon);
//#if HELD > 0
//#for i in 0..HELD
  if (thread + $(i * THREADS)u < size.units) {
    let at = thread + $(i * THREADS)u;
    y[first + at] = weight(at) * ((value$i - mean) * scale);
  }
//#end
//#else
  for (var u = thread; u < size.units; u += $(THREADS)u) {
    y[first + u] = weight(u) * ((x[first + u] - mean) * scale);
  }
//#end
}
