// Sorts the pairs of a token and one of its experts by expert, in order of tokens, into slots of which each expert has whole tiles of 32.
//
// A pair is a weight above 0 that is among the first CHOSEN of its token's. Level 1 counts each expert's pairs. Level 2 places them:
//
//   token_of_slot[s], entry_of_slot[s]   the token of the pair in slot s, and where in `weights` its weight lies; -1 where there is none
//   slots_of_token[t, j]                 where the pair of token t and the j-th of its experts lies; -1 if it has not so many
//   slot_of_entry[t, e]                  the same by expert; -1 where t does not use e
//   tiles[i]                             the expert of slots 32 i ... 32 i + 31, and how many of them are used; (-1, 0) for none
//   ranges[e]                            the first slot of the expert, and how many it uses from there on
//
// Bindings: weights [T, E], then level 1: counts [E]; level 2: counts and the above. A workgroup of 64 takes one expert; its threads
// take neighbouring tokens, a run each. Constant: LEVEL.

struct Size { tokens: u32, experts: u32, chosen: u32, tiles: u32, run: u32 }

@group(0) @binding(0) var<storage, read> weights: array<f32>;
//#if LEVEL == 1
@group(0) @binding(1) var<storage, read_write> counts: array<u32>;
//#else
@group(0) @binding(1) var<storage, read> counts: array<u32>;
@group(0) @binding(2) var<storage, read_write> token_of_slot: array<i32>;
@group(0) @binding(3) var<storage, read_write> entry_of_slot: array<i32>;
@group(0) @binding(4) var<storage, read_write> slots_of_token: array<i32>;
@group(0) @binding(5) var<storage, read_write> slot_of_entry: array<i32>;
@group(0) @binding(6) var<storage, read_write> tiles: array<vec2<i32>>;
@group(0) @binding(7) var<storage, read_write> ranges: array<vec2<i32>>;
//#end
@group(1) @binding(0) var<uniform> size: Size;

var<workgroup> sums: array<u32, 64>;

// Experts that a token uses among the first `end`.
fn used_before(token: u32, end: u32) -> u32 {
  var used = 0u;
  for (var e = 0u; e < end; e++) { used += u32(weights[token * size.experts + e] > 0.0); }
  return used;
}

fn is_pair(token: u32, expert: u32) -> bool {
  return weights[token * size.experts + expert] > 0.0 && used_before(token, expert) < size.chosen;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let expert = group.x + group.y * groups.x;
  if (expert >= size.experts) { return; }
  let begin = min(thread * size.run, size.tokens);
  let end = min(begin + size.run, size.tokens);
  var own = 0u;
  for (var t = begin; t < end; t++) { own += u32(is_pair(t, expert)); }
  // Inclusive sums over the threads (Hillis and Steele, Communications of the ACM 29(12), 1986).
  sums[thread] = own;
  workgroupBarrier();
//#for level in 0..6
  {
    var before = 0u;
    if (thread >= (1u << $(level)u)) { before = sums[thread - (1u << $(level)u)]; }
    workgroupBarrier();
    sums[thread] += before;
    workgroupBarrier();
  }
//#end
//#if LEVEL == 1
  if (thread == 63u) { counts[expert] = sums[63]; }
//#else
  let count = sums[63];
  var tile = 0u;
  for (var e = 0u; e < expert; e++) { tile += (counts[e] + 31u) / 32u; }
  let after = tile + (count + 31u) / 32u;
  if (thread == 0u) { ranges[expert] = vec2<i32>(i32(tile * 32u), i32(count)); }
  var slot = tile * 32u + sums[thread] - own;
  for (var t = begin; t < end; t++) {
    let entry = t * size.experts + expert;
    let rank = used_before(t, expert);
    var at = -1;
    if (weights[entry] > 0.0 && rank < size.chosen) {
      at = i32(slot);
      token_of_slot[slot] = i32(t);
      entry_of_slot[slot] = i32(entry);
      slots_of_token[t * size.chosen + rank] = at;
      slot++;
    }
    slot_of_entry[entry] = at;
  }
  // Of the last expert also what no expert has.
  let clear_to = select(after, size.tiles, expert + 1u == size.experts);
  for (var s = tile * 32u + count + thread; s < clear_to * 32u; s += 64u) {
    token_of_slot[s] = -1;
    entry_of_slot[s] = -1;
  }
  for (var i = tile + thread; i < clear_to; i += 64u) {
    let left = i32(tile * 32u + count) - i32(i * 32u);
    tiles[i] = select(vec2<i32>(-1, 0), vec2<i32>(i32(expert), min(left, 32)), i < after);
  }
  if (expert == 0u) {
    for (var t = begin; t < end; t++) {
      for (var j = used_before(t, size.experts); j < size.chosen; j++) { slots_of_token[t * size.chosen + j] = -1; }
    }
  }
//#end
}
