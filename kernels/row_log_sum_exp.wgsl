// out[t] = log sum_n exp(x[t, n] / temperature), from the row's largest: m / temperature + log sum_n exp((x[t, n] - m) / temperature).
//
// Bindings: x [T, N], out [T]. A workgroup of THREADS makes one row.
//
// Constants: SUBGROUP (1: the workgroup is one subgroup of 8; 0: 2^LEVELS threads and workgroup memory), THREADS, LEVELS, VECTOR (4; or
// 1, where N is not a multiple of 4), TEMPERATURE (1: it is a step scalar; 0: it is 1).

struct Size { rows: u32, units: u32, temperature: u32 }

//#if VECTOR == 4
alias Unit = vec4<f32>;
fn largest_of(v: Unit) -> f32 { return max(max(v.x, v.y), max(v.z, v.w)); }
fn sum_of(v: Unit) -> f32 { return (v.x + v.y) + (v.z + v.w); }
//#else
alias Unit = f32;
fn largest_of(v: Unit) -> f32 { return v; }
fn sum_of(v: Unit) -> f32 { return v; }
//#end

@group(0) @binding(0) var<storage, read> x: array<Unit>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(1) @binding(0) var<uniform> size: Size;
//#if TEMPERATURE
@group(1) @binding(1) var<uniform> step: array<vec4<f32>, 64>;
//#end

//#include row_sum

//#if SUBGROUP
fn max_over_threads(value: f32, thread: u32) -> f32 { return subgroupMax(value); }
//#else
var<workgroup> shared_largest: array<f32, $THREADS>;

fn max_over_threads(value: f32, thread: u32) -> f32 {
  shared_largest[thread] = value;
  workgroupBarrier();
//#for level in 0..LEVELS
  if (thread < ($(THREADS / 2)u >> $(level)u)) {
    shared_largest[thread] = max(shared_largest[thread], shared_largest[thread + ($(THREADS / 2)u >> $(level)u)]);
  }
  workgroupBarrier();
//#end
  return shared_largest[0];
}
//#end

@compute @workgroup_size($THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let row = group.x + group.y * groups.x;
  if (row >= size.rows) { return; }
//#if TEMPERATURE
  let temperature = step[size.temperature / 4u][size.temperature % 4u];
//#else
  let temperature = 1.0;
//#end
  let first = row * size.units;
  // Every thread has an element or the row's first.
  var found = x[first];
  for (var u = thread; u < size.units; u += $(4 * THREADS)u) {
//#for i in 0..4
    if (u + $(i * THREADS)u < size.units) { found = max(found, x[first + u + $(i * THREADS)u]); }
//#end
  }
  let largest = max_over_threads(largest_of(found), thread);
  var sums = Unit();
  for (var u = thread; u < size.units; u += $(4 * THREADS)u) {
//#for i in 0..4
    if (u + $(i * THREADS)u < size.units) {
      sums += exp((x[first + u + $(i * THREADS)u] - largest) / temperature);
    }
//#end
  }
  let total = sum_over_threads(sum_of(sums), thread);
  if (thread == 0u) { out[row] = largest / temperature + log(total); }
}
