// Of each row of logits: that of a given token, the logarithm of the sum of exponentials over the whole row, and the token's place among
// the row's entries by falling value (1 is the largest; of equal ones the lower id stands first).
//
// Bindings: x [R, V]; tokens i32 [R], below 0 where there is none; scores f32 [R, 3]: logit, log sum exp, place; logit and place are 0
// where there is no token. A workgroup of LANES makes one row.
//
// Constants: LANES, UNROLL: elements of a lane in a turn. Mesa's software driver gives a thread 65,535 turns in all. V is at most 2^24,
// so that places are exact.

struct Size { rows: u32, width: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> tokens: array<i32>;
@group(0) @binding(2) var<storage, read_write> scores: array<f32>;
@group(1) @binding(0) var<uniform> size: Size;

var<workgroup> tops: array<f32, $LANES>;
var<workgroup> masses: array<f32, $LANES>;
var<workgroup> counts: array<u32, $LANES>;

@compute @workgroup_size($LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let row = group.x + group.y * groups.x;
  if (row >= size.rows) { return; }
  let first = row * size.width;
  let share = (size.width + $(LANES - 1)u) / $(LANES)u;
  let begin = min(lane * share, size.width);
  let end = min(begin + share, size.width);
  let token = tokens[row];
  let there = token >= 0 && token < i32(size.width);
  let id = select(0u, u32(token), there);
  let own = x[first + id];

  var top = -3.0e38;
  for (var u = begin; u < end; u += $(UNROLL)u) {
//#for i in 0..UNROLL
    top = max(top, x[first + min(u + $(i)u, end - 1u)]);
//#end
  }
  tops[lane] = top;
  workgroupBarrier();
  for (var other = 0u; other < $(LANES)u; other++) { top = max(top, tops[other]); }

  var mass = 0.0;
  var count = 0u;
  for (var u = begin; u < end; u += $(UNROLL)u) {
    var part = 0.0;
//#for i in 0..UNROLL
    {
      let v = u + $(i)u;
      let z = x[first + min(v, end - 1u)];
      part += select(0.0, exp(z - top), v < end);
      count += u32(v < end && (z > own || (z == own && v < id)));
    }
//#end
    mass += part;
  }
  masses[lane] = mass;
  counts[lane] = count;
  workgroupBarrier();

  if (lane > 0u) { return; }
  var sum = 0.0;
  var before = 0u;
  for (var other = 0u; other < $(LANES)u; other++) {
    sum += masses[other];
    before += counts[other];
  }
  scores[row * 3u] = select(0.0, own, there);
  scores[row * 3u + 1u] = top + log(sum);
  scores[row * 3u + 2u] = select(0.0, f32(before + 1u), there);
}
