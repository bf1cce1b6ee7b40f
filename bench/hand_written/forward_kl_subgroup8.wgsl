// Forward KL of each row of logits and its gradient, written by hand: what the compiled kernel is measured beside.
//
// One subgroup of 8 lanes a row, two sweeps. No masks, no floors, no care for rows that are not finite, and sums in one float a lane.
// V must be a multiple of 128.
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

fn highest(v: vec4<f32>) -> f32 { return max(max(v.x, v.y), max(v.z, v.w)); }

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let row = group.x + group.y * groups.x;
  if (row >= size.rows) { return; }
  let base = row * (size.vocabulary / 4u) + lane;
  let turns = size.vocabulary / 128u;
  var top = vec2<f32>(-3.0e38);
  var sum = vec2<f32>(0.0);
  for (var turn = 0u; turn < turns; turn++) {
    let at = base + turn * 32u;
    let q0 = student_logits[at];
    let p0 = teacher_logits[at];
    let q1 = student_logits[at + 8u];
    let p1 = teacher_logits[at + 8u];
    let q2 = student_logits[at + 16u];
    let p2 = teacher_logits[at + 16u];
    let q3 = student_logits[at + 24u];
    let p3 = teacher_logits[at + 24u];
    let next = max(top, vec2<f32>(highest(max(max(q0, q1), max(q2, q3))), highest(max(max(p0, p1), max(p2, p3)))));
    let q = (exp(q0 - next.x) + exp(q1 - next.x)) + (exp(q2 - next.x) + exp(q3 - next.x));
    let p = (exp(p0 - next.y) + exp(p1 - next.y)) + (exp(p2 - next.y) + exp(p3 - next.y));
    sum = sum * exp(top - next) + vec2<f32>(dot(q, vec4<f32>(1.0)), dot(p, vec4<f32>(1.0)));
    top = next;
  }
  let most = vec2<f32>(subgroupMax(top.x), subgroupMax(top.y));
  let mine = sum * exp(top - most);
  let lse = most + log(vec2<f32>(subgroupAdd(mine.x), subgroupAdd(mine.y)));
  var value = vec4<f32>(0.0);
  for (var turn = 0u; turn < turns; turn++) {
    let at = base + turn * 32u;
    let q0 = student_logits[at] - lse.x;
    let p0 = teacher_logits[at] - lse.y;
    let q1 = student_logits[at + 8u] - lse.x;
    let p1 = teacher_logits[at + 8u] - lse.y;
    let q2 = student_logits[at + 16u] - lse.x;
    let p2 = teacher_logits[at + 16u] - lse.y;
    let q3 = student_logits[at + 24u] - lse.x;
    let p3 = teacher_logits[at + 24u] - lse.y;
    let e0 = exp(p0);
    let e1 = exp(p1);
    let e2 = exp(p2);
    let e3 = exp(p3);
    value += (e0 * (p0 - q0) + e1 * (p1 - q1)) + (e2 * (p2 - q2) + e3 * (p3 - q3));
    student_logits[at] = exp(q0) - e0;
    student_logits[at + 8u] = exp(q1) - e1;
    student_logits[at + 16u] = exp(q2) - e2;
    student_logits[at + 24u] = exp(q3) - e3;
  }
  let total = subgroupAdd(dot(value, vec4<f32>(1.0)));
  if (lane == 0u) { row_values[row] = total; }
}
