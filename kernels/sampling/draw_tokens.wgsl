// N draws with replacement from softmax(x) of each row: which elements came up, by rising id, and how often.
//
// Draw j of a row is word j % 4 of Philox 4x32-10 (Salmon et al., SC 2011) with the counter (j / 4, counter of the row, 0x72736b64, 0)
// and the key (seed). The draws are sorted; each lane walks once through a range of the row and meets those that fall into it.
//
// Bindings: x [R, V]; counters u32 [R]; ids u32 [R, N], 0xffffffff where fewer than N came up; counts u32 [R, N]. A workgroup of LANES
// makes one row.
//
// Constants: N, LANES, UNROLL: elements of a lane in a turn. Mesa's software driver gives a thread 65,535 turns in all.

struct Size { rows: u32, width: u32, seed_low: u32, seed_high: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> counters: array<u32>;
@group(0) @binding(2) var<storage, read_write> ids: array<u32>;
@group(0) @binding(3) var<storage, read_write> counts: array<u32>;
@group(1) @binding(0) var<uniform> size: Size;

var<workgroup> tops: array<f32, $LANES>;
var<workgroup> masses: array<f32, $LANES>;
var<workgroup> draws: array<f32, $N>;
var<workgroup> sorted: array<f32, $N>;
var<workgroup> drawn: array<u32, $N>;

//#include philox

// The middle of one of 2^24 steps of (0, 1).
fn uniform_number(draw: u32, row: u32) -> f32 {
  let c = philox(vec4<u32>(draw / 4u, counters[row], 0x72736b64u, 0u), vec2<u32>(size.seed_low, size.seed_high));
  return (f32(c[draw % 4u] >> 8u) + 0.5) * 5.9604644775390625e-8;
}

fn weight_of(first: u32, v: u32, end: u32, top: f32) -> f32 {
  return select(0.0, exp(x[first + min(v, end - 1u)] - top), v < end);
}

@compute @workgroup_size($LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let row = group.x + group.y * groups.x;
  if (row >= size.rows) { return; }
  let first = row * size.width;
  let share = (size.width + $(LANES - 1)u) / $(LANES)u;
  let begin = min(lane * share, size.width);
  let end = min(begin + share, size.width);

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
  for (var u = begin; u < end; u += $(UNROLL)u) {
//#for i in 0..UNROLL
    mass += weight_of(first, u + $(i)u, end, top);
//#end
  }
  masses[lane] = mass;
  for (var j = lane; j < $(N)u; j += $(LANES)u) { draws[j] = uniform_number(j, row); }
  workgroupBarrier();

  for (var j = lane; j < $(N)u; j += $(LANES)u) {
    let draw = draws[j];
    var place = 0u;
    for (var other = 0u; other < $(N)u; other++) {
      place += u32(draws[other] < draw || (draws[other] == draw && other < j));
    }
    sorted[place] = draw;
  }
  // The same order of additions in every lane, so that the lanes' ranges meet.
  var before = 0.0;
  var total = 0.0;
  for (var other = 0u; other < $(LANES)u; other++) {
    if (other == lane) { before = total; }
    total += masses[other];
  }
  let after = before + mass;
  // Below the total, whatever the product is rounded to.
  let highest = total * 0.9999998;
  workgroupBarrier();

  var j = 0u;
  while (j < $(N)u && min(sorted[j] * total, highest) < before) { j++; }
  var sum = 0.0;
  var last = begin;
  for (var u = begin; u < end; u += $(UNROLL)u) {
//#for i in 0..UNROLL
    {
      let weight = weight_of(first, u + $(i)u, end, top);
      sum += weight;
      if (weight > 0.0) { last = u + $(i)u; }
      while (j < $(N)u && min(sorted[j] * total, highest) < after && min(sorted[j] * total, highest) - before < sum) {
        drawn[j] = u + $(i)u;
        j++;
      }
    }
//#end
  }
  // What rounding has left over.
  while (j < $(N)u && min(sorted[j] * total, highest) < after) {
    drawn[j] = last;
    j++;
  }
  workgroupBarrier();

  for (var i = lane; i < $(N)u; i += $(LANES)u) {
    let id = drawn[i];
    var place = 0u;
    var count = 0u;
    var different = 1u;
    for (var other = 0u; other < $(N)u; other++) {
      let isNew = other > 0u && drawn[other] != drawn[max(other, 1u) - 1u];
      different += u32(isNew);
      place += u32(isNew && other <= i);
      count += u32(drawn[other] == id);
    }
    // Every draw of an element writes the same.
    ids[row * $(N)u + place] = id;
    counts[row * $(N)u + place] = count;
    if (i >= different) {
      ids[row * $(N)u + i] = 0xffffffffu;
      counts[row * $(N)u + i] = 0u;
    }
  }
}
