// Gradient of attention with respect to its queries, for software adapters. The weights p are recomputed, never stored.
//
//   ds[i, j] = p[i, j] (dout[i, h] . v[j, g] - delta[i, h]),  dq[i, h] = scale * sum_j ds[i, j] k[j, g],
//   p[i, j] = exp(scale * q[i, h] . k[j, g] - logsumexp[h, i]) for start[i] <= j < end[i], else 0  (arXiv 2205.14135, B.4)
//
// Bindings: q and dout [T, heads * D], k and v [S, heads / group * D], rows [heads, T] (see attention_rows.wgsl),
// dq [T, heads * D].
//
// One workgroup is one subgroup of 8 lanes and makes 32 queries of one head, four neighbouring ones a lane, KEYS keys at a time;
// the work is laid out as in attention_forward_subgroup8.wgsl.
//
// Constants: KEYS (multiple of 8), COLUMNS (of the gradient made by one workgroup, multiple of 4), HELD. Limits: D a multiple of 4.
// The outer loop is the same for all lanes, which Tint cannot see: it needs `diagnostic(off, subgroup_uniformity);` in front. Telling it
// through workgroupUniformLoad costs a quarter of the speed.

//#include attention_size

@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> dq: array<vec4<f32>>;
@group(1) @binding(0) var<uniform> size: Size;

//#if HELD == 0
// [COLUMNS][8 lanes]; zero at first.
var<workgroup> sums: array<vec4<f32>, $(COLUMNS * 8)>;
//#end

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(subgroup_invocation_id) lane: u32) {
  let tile = group.x + group.y * groups.x;
  if (tile >= size.total) { return; }
  // The z is always 0. A loop bound that is plainly a uniform makes Mesa compile the kernel anew for each value of it.
  let vectors = size.vectors + group.z;
  let head = tile / size.tiles % size.heads;
  let part = tile / size.tiles / size.heads * $(COLUMNS / 4)u;
  let row = tile % size.tiles * 32u + lane * 4u;
  let kv_heads = size.heads / size.group;
  let kv_head = head / size.group;
  var first = vec4<i32>(0x7fffffff);
  var last = vec4<i32>(0);
  var normaliser = vec4<f32>();
  var delta = vec4<f32>();
//#for c in 0..4
  let own$c = (min(row + $(c)u, size.queries - 1u) * size.heads + head) * size.vectors;
  if (row + $(c)u < size.queries) {
    let known = rows[head * size.queries + row + $(c)u];
    normaliser[$c] = bitcast<f32>(known.x);
    delta[$c] = bitcast<f32>(known.y);
    first[$c] = bitcast<i32>(known.z);
    last[$c] = bitcast<i32>(known.w);
  }
//#end
  let from_key = subgroupMin(min(min(first.x, first.y), min(first.z, first.w)));
  let to_key = subgroupMax(max(max(last.x, last.y), max(last.z, last.w)));

//#if HELD > 0
//#include attention_held_subgroup8 with OWN = q, OWN_ROW = q_own, OWN_ROWS = 4, KEPT = q_kept
//#include attention_held_subgroup8 with OWN = dout, OWN_ROW = dout_own, OWN_ROWS = 4, KEPT = dout_kept
//#for d in 0..4 * HELD
  var sum$d = vec4<f32>();
//#end
//#end
  for (var key = from_key; key < to_key; key += $KEYS) {
//#for j in 0..KEYS
    var s$j = vec4<f32>();
    var p$j = vec4<f32>();
//#end
//#for i in 0..KEYS / 8
    let spread$i = (min(u32(key) + $(i * 8)u + lane, size.keys - 1u) * kv_heads + kv_head) * size.vectors;
//#end
//#include attention_products_subgroup8 with OUT = s, SPREAD = k, SPREAD_ROWS = KEYS, OWN = q, OWN_ROWS = 4, KEPT = q_kept
//#include attention_products_subgroup8 with OUT = p, SPREAD = v, SPREAD_ROWS = KEYS, OWN = dout, OWN_ROWS = 4, KEPT = dout_kept
//#for j in 0..KEYS
//#if SOFT_CAP
    s$j = tanh_vec4(s$j * size.inner);
//#end
    p$j = select(vec4<f32>(), exp2(s$j * size.factor - normaliser) * (p$j - delta),
      (first <= vec4<i32>(key + $j)) & (last > vec4<i32>(key + $j)));
//#if SOFT_CAP
    p$j *= 1.0 - s$j * s$j;
//#end
//#end
//#if HELD > 0
//#for t in 0..HELD
//#for d in 0..4
    var o$(4 * t + d) = vec4<f32>();
//#for j in 0..KEYS
    o$(4 * t + d) += subgroupBroadcast(k$(t * KEYS / 8 + j / 8)[$d], $(j % 8)u) * p$j;
//#end
    sum$(4 * t + d) += o$(4 * t + d);
//#end
//#end
//#else
    var at = lane;
    for (var t = part; t < min(part + $(COLUMNS / 4)u, vectors); t++) {
//#for i in 0..KEYS / 8
      let a$i = k[spread$i + t];
//#end
//#for d in 0..4
      var o$d = vec4<f32>();
//#for j in 0..KEYS
      o$d += subgroupBroadcast(a$(j / 8)[$d], $(j % 8)u) * p$j;
//#end
      sums[at + $(d * 8)u] += o$d;
//#end
      at += 32u;
    }
//#end
  }

//#include turns
  let scale = select(bitcast<f32>(0x7fc00000u + group.z), size.scale, alive == 1u);
//#if HELD > 0
//#for t in 0..HELD
//#for d in 0..4
  sum$(4 * t + d) *= scale;
//#end
//#for c in 0..4
  if (row + $(c)u < size.queries) {
    dq[own$c + $(t)u] = vec4<f32>(sum$(4 * t)[$c], sum$(4 * t + 1)[$c], sum$(4 * t + 2)[$c], sum$(4 * t + 3)[$c]);
  }
//#end
//#end
//#else
  var at = lane;
  for (var t = part; t < min(part + $(COLUMNS / 4)u, vectors); t++) {
//#for d in 0..4
    let o$d = sums[at + $(d * 8)u] * scale;
//#end
//#for c in 0..4
    if (row + $(c)u < size.queries) { dq[own$c + t] = vec4<f32>(o0[$c], o1[$c], o2[$c], o3[$c]); }
//#end
    at += 32u;
  }
//#end
}
