// Backward pass of the layer norm to its input. With m the mean of row t, r = 1 / sqrt(mean_h((x - m)^2) + epsilon), g = w * dy, n = (x - m) r:
//
//   dx[t, h] = r * (g[t, h] - mean_h(g[t, :]) - n[t, h] * mean_h(g[t, :] * n[t, :]))
//
// m and r are computed again, and written out for the gradient of the weight.
//
// Bindings: x [T, H], w [H] (WEIGHT: its storage), dy [T, H], dx [T, H], scale [T] (= r), mean [T]. A workgroup of THREADS makes one row.
//
// Constants: as in layer_norm.wgsl, but SUM is vec3<f32>.

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
@group(0) @binding(2) var<storage, read> dy: array<Unit>;
@group(0) @binding(3) var<storage, read_write> dx: array<Unit>;
@group(0) @binding(4) var<storage, read_write> scale: array<f32>;
@group(0) @binding(5) var<storage, read_write> means: array<f32>;
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
  var gradient$i = Unit();
  if (thread + $(i * THREADS)u < size.units) {
    let at = thread + $(i * THREADS)u;
    value$i = x[first + at];
    gradient$i = weight(at) * dy[first + at];
  }
  values += value$i;
//#end
//#else
  for (var u = thread; u < size.units; u += $(THREADS)u) { values += x[first + u]; }
//#end
  let mean = sum_over_threads(vec3<f32>(over_unit(values)), thread).x / size.width;
  var squares = Unit();
  var gradients = Unit();
  var products = Unit();
//#if HELD > 0
//#for i in 0..HELD
  if (thread + $(i * THREADS)u < size.units) {
    let value = value$i - mean;
    squares += value * value;
    gradients += gradient$i;
    products += gradient$i * value;
  }
//#end
//#else
  for (var u = thread; u < size.units; u += $(THREADS)u) {
    let value = x[first + u] - mean;
    let g = weight(u) * dy[first + u];
    squares += value * value;
    gradients += g;
    products += g * value;
  }
//#end
//#if !SUBGROUP
  // All have read the sum before the next ones are begun.
  workgroupBarrier();
//#end
  let sums = sum_over_threads(vec3<f32>(over_unit(squares), over_unit(gradients), over_unit(products)), thread);
  let r = 1.0 / sqrt(sums.x / size.width + size.epsilon);
  let evenly = sums.y / size.width;
  let along = r * r * sums.z / size.width;
//#if HELD > 0
//#for i in 0..HELD
  if (thread + $(i * THREADS)u < size.units) {
    dx[first + thread + $(i * THREADS)u] = r * (gradient$i - evenly - (value$i - mean) * along);
  }
//#end
//#else
  for (var u = thread; u < size.units; u += $(THREADS)u) {
    dx[first + u] = r * (weight(u) * dy[first + u] - evenly - (x[first + u] - mean) * along);
  }
//#end
  if (thread == 0u) {
    scale[row] = r;
    means[row] = mean;
  }
}
