// One token of each row, drawn from softmax(x / temperature) after top-k and top-p, and what the draw is to be judged by.
//
// Temperature first, then the topK likeliest, then of those the fewest likeliest whose probabilities sum to topP; of equal ones the lower id
// first. The last one that is kept is found 4 bits of its value at a time from the top: a sweep adds up the elements that share the bits
// found so far by their next four, one for each (top-k) or their weights (top-p). The draw is word 0 of Philox 4x32-10 (Salmon et al.,
// SC 2011) with the counter (place, sequence, 0, 0x73616d70) and the key (seed): the kept elements by rising id are walked through until
// their weights reach it. Temperature 0 takes the largest, the first among equals.
//
// Bindings: x [R, V]; draws u32 [R, 8]: place of the token in its text (0xffffffff: the row is left as it is), number of the sequence,
// temperature (f32), topK (0: all), topP (f32, 1: all), seed (low, high), nothing; tokens i32 [R]; measures f32 [R, 2]: log-probability
// of the token and entropy of the row in nats, both of softmax(x / temperature) before top-k and top-p (at temperature 0: of softmax(x)).
// A workgroup of LANES makes one row.
//
// Constants: LANES, SUBGROUP (1: the workgroup is one subgroup), UNROLL: elements of a lane in a turn. Mesa's software driver gives a
// thread 65,535 turns in all. V is at most 2^24: f32 counts elements.

struct Size { rows: u32, width: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> draws: array<u32>;
@group(0) @binding(2) var<storage, read_write> tokens: array<i32>;
@group(0) @binding(3) var<storage, read_write> measures: array<f32>;
@group(1) @binding(0) var<uniform> size: Size;

var<workgroup> tops: array<f32, $LANES>;
var<workgroup> places: array<u32, $LANES>;
var<workgroup> masses: array<f32, $LANES>;
var<workgroup> moments: array<f32, $LANES>;
var<workgroup> equals: array<u32, $LANES>;

//#include philox

//#if SUBGROUP
fn total(value: vec4<f32>, lane: u32) -> vec4<f32> { return subgroupAdd(value); }
//#else
var<workgroup> parts: array<vec4<f32>, $LANES>;

fn total(value: vec4<f32>, lane: u32) -> vec4<f32> {
  parts[lane] = value;
  workgroupBarrier();
  for (var half = $(LANES / 2)u; half > 0u; half /= 2u) {
    if (lane < half) { parts[lane] += parts[lane + half]; }
    workgroupBarrier();
  }
  let sum = parts[0];
  workgroupBarrier();
  return sum;
}
//#end

//#include ordered_key

fn value_of(key: u32) -> f32 {
  return bitcast<f32>(select(~key, key & 0x7fffffffu, (key & 0x80000000u) != 0u));
}

@compute @workgroup_size($LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let row = group.x + group.y * groups.x;
  if (row >= size.rows) { return; }
  let place = draws[8u * row];
  if (place == 0xffffffffu) { return; }
  let temperature = bitcast<f32>(draws[8u * row + 2u]);
  let top_k = draws[8u * row + 3u];
  let top_p = bitcast<f32>(draws[8u * row + 4u]);
  let scale = select(1.0 / max(temperature, 1.0e-6), 1.0, temperature == 0.0);
  let first = row * size.width;
  let share = (size.width + $(LANES - 1)u) / $(LANES)u;
  let begin = min(lane * share, size.width);
  let end = min(begin + share, size.width);

  var top = -3.4e38;
  var best = begin;
  for (var u = begin; u < end; u += $(UNROLL)u) {
//#for i in 0..UNROLL
    {
      let v = min(u + $(i)u, end - 1u);
      let z = x[first + v];
      if (z > top) { top = z; best = v; }
    }
//#end
  }
  tops[lane] = top;
  places[lane] = best;
  workgroupBarrier();
  top = tops[0];
  best = places[0];
  for (var other = 1u; other < $(LANES)u; other++) {
    if (tops[other] > top) { top = tops[other]; best = places[other]; }
  }

  var mass = 0.0;
  var moment = 0.0;
  for (var u = begin; u < end; u += $(UNROLL)u) {
//#for i in 0..UNROLL
    {
      let d = (x[first + min(u + $(i)u, end - 1u)] - top) * scale;
      let weight = select(0.0, exp(d), u + $(i)u < end);
      mass += weight;
      moment += select(0.0, weight * d, weight > 0.0);
    }
//#end
  }
  masses[lane] = mass;
  moments[lane] = moment;
  workgroupBarrier();
  var all = 0.0;
  var all_moments = 0.0;
  for (var other = 0u; other < $(LANES)u; other++) {
    all += masses[other];
    all_moments += moments[other];
  }
  let entropy = log(all) - all_moments / all;
  if (temperature == 0.0) {
    if (lane == 0u) {
      tokens[row] = i32(best);
      measures[2u * row] = -log(all);
      measures[2u * row + 1u] = entropy;
    }
    return;
  }

  // What is kept: values above the last one, and so many of those that equal it.
  var last_key = 0u;
  var kept_equals = 0xffffffffu;
  let by_count = top_k > 0u && top_k < size.width;
  let by_mass = top_p < 1.0;
  for (var rule = 0u; rule < 2u; rule++) {
    let counts = rule == 0u;
    if ((counts && by_count) || (!counts && by_mass)) {
      var wanted = f32(top_k);
      if (!counts) {
        // Of what top-k has left.
        var left = all;
        if (by_count) {
          var sum = 0.0;
          for (var u = lane; u < size.width; u += $(UNROLL * LANES)u) {
//#for i in 0..UNROLL
            {
              let v = u + $(i * LANES)u;
              let z = x[first + min(v, size.width - 1u)];
              sum += select(0.0, exp((z - top) * scale), v < size.width && key_of(z) > last_key);
            }
//#end
          }
          left = total(vec4<f32>(sum), lane).x + f32(kept_equals) * exp((value_of(last_key) - top) * scale);
        }
        wanted = top_p * left;
      }
      var key = 0u;
      for (var digit = 0u; digit < 8u; digit++) {
        let shift = 28u - 4u * digit;
        let found = ~((2u << (shift + 3u)) - 1u);
        var bins0 = vec4<f32>();
        var bins1 = vec4<f32>();
        var bins2 = vec4<f32>();
        var bins3 = vec4<f32>();
        for (var u = lane; u < size.width; u += $(UNROLL * LANES)u) {
//#for i in 0..UNROLL
          {
            let v = u + $(i * LANES)u;
            let z = x[first + min(v, size.width - 1u)];
            let own = key_of(z);
            let fits = ((own ^ key) & found) == 0u && v < size.width;
            let bin = select(16u, (own >> shift) & 15u, fits);
            let amount = vec4<f32>(select(exp((z - top) * scale), 1.0, counts));
            bins0 += select(vec4<f32>(), amount, vec4<u32>(bin) == vec4<u32>(0u, 1u, 2u, 3u));
            bins1 += select(vec4<f32>(), amount, vec4<u32>(bin) == vec4<u32>(4u, 5u, 6u, 7u));
            bins2 += select(vec4<f32>(), amount, vec4<u32>(bin) == vec4<u32>(8u, 9u, 10u, 11u));
            bins3 += select(vec4<f32>(), amount, vec4<u32>(bin) == vec4<u32>(12u, 13u, 14u, 15u));
          }
//#end
        }
        let bins = array<vec4<f32>, 4>(total(bins0, lane), total(bins1, lane), total(bins2, lane), total(bins3, lane));
        var above = 0.0;
        var before = 0.0;
        var bin = 0u;
        var reached = false;
        // Where rounding keeps the sum below what is wanted, the lowest that has anything is the one.
//#for i in 0..16
        {
          let amount = bins[$((15 - i) / 4)][$((15 - i) % 4)];
          if (!reached && amount > 0.0) {
            bin = $(15 - i)u;
            before = above;
            above += amount;
            reached = above >= wanted;
          }
        }
//#end
        wanted -= before;
        key |= bin << shift;
      }
      var equals_wanted = u32(max(wanted, 1.0));
      if (!counts) {
        let weight = max(exp((value_of(key) - top) * scale), 1.0e-37);
        equals_wanted = u32(clamp(ceil(wanted / weight), 1.0, 16777216.0));
      }
      if (key > last_key) {
        kept_equals = equals_wanted;
      } else if (key == last_key) {
        kept_equals = min(kept_equals, equals_wanted);
      }
      last_key = max(last_key, key);
    }
  }

  var equal = 0u;
  if (by_count || by_mass) {
    for (var u = begin; u < end; u += $(UNROLL)u) {
//#for i in 0..UNROLL
      equal += u32(u + $(i)u < end && key_of(x[first + min(u + $(i)u, end - 1u)]) == last_key);
//#end
    }
    equals[lane] = equal;
    workgroupBarrier();
    equal = 0u;
    for (var other = 0u; other < lane; other++) { equal += equals[other]; }
    var seen = equal;
    mass = 0.0;
    for (var u = begin; u < end; u += $(UNROLL)u) {
//#for i in 0..UNROLL
      {
        let z = x[first + min(u + $(i)u, end - 1u)];
        let own = key_of(z);
        let is_equal = own == last_key;
        mass += select(0.0, exp((z - top) * scale),
                       u + $(i)u < end && (own > last_key || (is_equal && seen < kept_equals)));
        seen += u32(is_equal);
      }
//#end
    }
    masses[lane] = mass;
    workgroupBarrier();
  }
  // The same order of additions in every lane, so that the lanes' ranges meet.
  var before = 0.0;
  var kept = 0.0;
  for (var other = 0u; other < $(LANES)u; other++) {
    if (other == lane) { before = kept; }
    kept += masses[other];
  }
  let after = before + mass;
  let word = philox(vec4<u32>(place, draws[8u * row + 1u], 0u, 0x73616d70u),
                    vec2<u32>(draws[8u * row + 5u], draws[8u * row + 6u])).x;
  // The middle of one of 2^24 steps of (0, 1); below the sum, whatever the product is rounded to.
  let reach = min((f32(word >> 8u) + 0.5) * 5.9604644775390625e-8 * kept, kept * 0.9999998);
  if (reach < before || reach >= after) { return; }
  var sum = 0.0;
  var chosen = begin;
  var done = false;
  for (var u = begin; u < end; u += $(UNROLL)u) {
//#for i in 0..UNROLL
    {
      let v = min(u + $(i)u, end - 1u);
      let z = x[first + v];
      let own = key_of(z);
      let is_equal = own == last_key;
      let weight = select(0.0, exp((z - top) * scale),
                          u + $(i)u < end && (own > last_key || (is_equal && equal < kept_equals)));
      equal += u32(is_equal);
      sum += weight;
      if (!done && weight > 0.0) {
        // The last one takes what rounding has left over.
        chosen = v;
        done = reach - before < sum;
      }
    }
//#end
  }
  tokens[row] = i32(chosen);
  measures[2u * row] = (x[first + chosen] - top) * scale - log(all);
  measures[2u * row + 1u] = entropy;
}
