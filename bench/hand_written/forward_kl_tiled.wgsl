// Forward KL of each row of logits and its gradient, written by hand: what the compiled kernel is measured beside.
//
// One workgroup of 256 lanes a row, two sweeps. No masks, no floors, no care for rows that are not finite, and sums in one float a lane.
// V must be a multiple of 4.
//
// labels         i32 [R], unused
// teacher_logits f32 [R, V]
// student_logits f32 [R, V], overwritten with q - p
// row_values     f32 [R], KL(p || q)
struct Size { rows: u32, vocabulary: u32 }
@group(0) @binding(0) var<storage, read> labels: array<i32>;
@group(0) @binding(1) var<storage, read> teacher_logits: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> student_logits: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> row_values: array<f32>;
@group(1) @binding(0) var<uniform> size: Size;

const LANES = 256u;
var<workgroup> shared_pairs: array<vec2<f32>, 256>;

fn highest(v: vec4<f32>) -> f32 { return max(max(v.x, v.y), max(v.z, v.w)); }

fn reduce_max(lane: u32, x: vec2<f32>) -> vec2<f32> {
  shared_pairs[lane] = x;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    if (lane < half) { shared_pairs[lane] = max(shared_pairs[lane], shared_pairs[lane + half]); }
    workgroupBarrier();
  }
  let result = shared_pairs[0];
  workgroupBarrier();
  return result;
}

fn reduce_sum(lane: u32, x: vec2<f32>) -> vec2<f32> {
  shared_pairs[lane] = x;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    if (lane < half) { shared_pairs[lane] = shared_pairs[lane] + shared_pairs[lane + half]; }
    workgroupBarrier();
  }
  let result = shared_pairs[0];
  workgroupBarrier();
  return result;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let row = group.x + group.y * groups.x;
  if (row >= size.rows) { return; }
  let vectors = size.vocabulary / 4u;
  let base = row * vectors;
  var top = vec2<f32>(-3.0e38);
  var sum = vec2<f32>(0.0);
  for (var i = lane; i < vectors; i += LANES) {
    let q = student_logits[base + i];
    let p = teacher_logits[base + i];
    let next = max(top, vec2<f32>(highest(q), highest(p)));
    sum = sum * exp(top - next) +
      vec2<f32>(dot(exp(q - next.x), vec4<f32>(1.0)), dot(exp(p - next.y), vec4<f32>(1.0)));
    top = next;
  }
  let most = reduce_max(lane, top);
  let lse = most + log(reduce_sum(lane, sum * exp(top - most)));
  var value = vec4<f32>(0.0);
  for (var i = lane; i < vectors; i += LANES) {
    let q = student_logits[base + i] - lse.x;
    let p = teacher_logits[base + i] - lse.y;
    let e = exp(p);
    value += e * (p - q);
    student_logits[base + i] = exp(q) - e;
  }
  let total = reduce_sum(lane, vec2<f32>(dot(value, vec4<f32>(1.0)), 0.0));
  if (lane == 0u) { row_values[row] = total.x; }
}
