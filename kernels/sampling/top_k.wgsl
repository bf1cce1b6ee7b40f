// The K largest elements of each row, largest first, of equal ones the lower id first.
//
// Elements are ordered by 56 bits: their value as an integer of the same order, then their id, lower ids above. The last of those
// that are chosen is found 4 bits at a time from the top: a sweep counts the elements that share the bits found so far by their
// next four. Sweeps over the ids' bits are left out where all elements of the last value are chosen. Then the chosen ones are
// collected, each lane's own in a range of its own, and written where the number of those before them says.
//
// Bindings: x [R, V]; ids u32 [R, K]; values f32 [R, K]. A workgroup of LANES makes one row. V is at most 2^24.
//
// Constants: K, LANES, SUBGROUP (1: the workgroup is one subgroup), UNROLL: elements of a lane in a turn. Mesa's software driver
// gives a thread 65,535 turns in all.

struct Size { rows: u32, width: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> ids: array<u32>;
@group(0) @binding(2) var<storage, read_write> values: array<f32>;
@group(1) @binding(0) var<uniform> size: Size;

var<workgroup> counts: array<u32, $LANES>;
var<workgroup> chosen_key: array<u32, $K>;
var<workgroup> chosen_id: array<u32, $K>;

//#if SUBGROUP
fn total(value: vec4<u32>, lane: u32) -> vec4<u32> { return subgroupAdd(value); }
//#else
var<workgroup> parts: array<vec4<u32>, $LANES>;

fn total(value: vec4<u32>, lane: u32) -> vec4<u32> {
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

fn is_chosen(first: u32, v: u32, last_key: u32, last_rank: u32) -> bool {
  let key = key_of(x[first + min(v, size.width - 1u)]);
  return v < size.width && (key > last_key || (key == last_key && 0xffffffu - v >= last_rank));
}

@compute @workgroup_size($LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let row = group.x + group.y * groups.x;
  if (row >= size.rows) { return; }
  let first = row * size.width;

  var last_key = 0u;
  var last_rank = 0u;
  var wanted = $(K)u;
  // Elements of the last value are to be told apart by their ids.
  var tied = true;
  for (var digit = 0u; digit < 14u; digit++) {
    let of_key = digit < 8u;
    let shift = select(52u - 4u * digit, 28u - 4u * digit, of_key);
    let found = ~((2u << (shift + 3u)) - 1u);
    var bins0 = vec4<u32>();
    var bins1 = vec4<u32>();
    var bins2 = vec4<u32>();
    var bins3 = vec4<u32>();
    if (of_key || tied) {
      for (var u = lane; u < size.width; u += $(UNROLL * LANES)u) {
//#for i in 0..UNROLL
        {
          let v = u + $(i * LANES)u;
          let key = key_of(x[first + min(v, size.width - 1u)]);
          let rank = 0xffffffu - v;
          let fits = select(key == last_key && ((rank ^ last_rank) & found) == 0u, ((key ^ last_key) & found) == 0u, of_key);
          let bin = select(16u, (select(rank, key, of_key) >> shift) & 15u, fits && v < size.width);
          bins0 += vec4<u32>(vec4<u32>(bin) == vec4<u32>(0u, 1u, 2u, 3u));
          bins1 += vec4<u32>(vec4<u32>(bin) == vec4<u32>(4u, 5u, 6u, 7u));
          bins2 += vec4<u32>(vec4<u32>(bin) == vec4<u32>(8u, 9u, 10u, 11u));
          bins3 += vec4<u32>(vec4<u32>(bin) == vec4<u32>(12u, 13u, 14u, 15u));
        }
//#end
      }
    }
    let bins = array<vec4<u32>, 4>(total(bins0, lane), total(bins1, lane), total(bins2, lane), total(bins3, lane));
    if (of_key || tied) {
      var above = 0u;
      var bin = 0u;
      var inside = 0u;
//#for i in 0..16
      if (inside == 0u) {
        let count = bins[$((15 - i) / 4)][$((15 - i) % 4)];
        if (above + count >= wanted) {
          bin = $(15 - i)u;
          inside = count;
        } else {
          above += count;
        }
      }
//#end
      wanted -= above;
      if (of_key) {
        last_key |= bin << shift;
        tied = inside > wanted;
      } else {
        last_rank |= bin << shift;
      }
    }
  }

  var own = 0u;
  for (var u = lane; u < size.width; u += $(UNROLL * LANES)u) {
//#for i in 0..UNROLL
    own += u32(is_chosen(first, u + $(i * LANES)u, last_key, last_rank));
//#end
  }
  counts[lane] = own;
  workgroupBarrier();
  var slot = 0u;
  for (var other = 0u; other < lane; other++) { slot += counts[other]; }
  for (var u = lane; u < size.width; u += $(UNROLL * LANES)u) {
//#for i in 0..UNROLL
    if (is_chosen(first, u + $(i * LANES)u, last_key, last_rank)) {
      chosen_key[slot] = key_of(x[first + u + $(i * LANES)u]);
      chosen_id[slot] = u + $(i * LANES)u;
      slot++;
    }
//#end
  }
  workgroupBarrier();
  for (var k = lane; k < $(K)u; k += $(LANES)u) {
    let key = chosen_key[k];
    let id = chosen_id[k];
    var place = 0u;
    for (var other = 0u; other < $(K)u; other++) {
      place += u32(chosen_key[other] > key || (chosen_key[other] == key && chosen_id[other] < id));
    }
    ids[row * $(K)u + place] = id;
    values[row * $(K)u + place] = x[first + id];
  }
}
