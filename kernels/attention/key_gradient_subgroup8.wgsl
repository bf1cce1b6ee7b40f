// Gradients of attention with respect to its keys and values, for software adapters. The weights p are recomputed, never stored.
//
//   dv[j, g] = sum_{h in g} sum_i p[i, j] dout[i, h],  dk[j, g] = scale * sum_{h in g} sum_i ds[i, j] q[i, h],
//   ds[i, j] = p[i, j] (dout[i, h] . v[j, g] - delta[i, h]),
//   p[i, j] = exp(scale * q[i, h] . k[j, g] - logsumexp[h, i]) for start[i] <= j < end[i], else 0  (arXiv 2205.14135, B.4)
//
// Bindings: q and dout [T, heads * D], k, v, dk, dv [S, heads / group * D], rows [heads, T] and blocks [ceil(T / 16)] (see
// attention_rows.wgsl).
//
// One workgroup is one subgroup of 8 lanes and makes 32 keys of one group of heads, four neighbouring ones a lane, from QUERIES
// queries at a time, head after head: the order of the sums is fixed. Laid out as attention_forward_subgroup8.wgsl with the parts
// of queries and keys exchanged.
//
// Constants: QUERIES (multiple of 16), COLUMNS (of the gradients made by one workgroup, multiple of 4), HELD (see attention_forward_subgroup8.wgsl).
// Limits: D a multiple of 4.
// The outer loop is the same for all lanes, which Tint cannot see: it needs `diagnostic(off, subgroup_uniformity);` in front. Telling it
// through workgroupUniformLoad costs a quarter of the speed.

//#include attention_size

@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> blocks: array<vec2<i32>>;
@group(0) @binding(6) var<storage, read_write> dk: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> dv: array<vec4<f32>>;
@group(1) @binding(0) var<uniform> size: Size;

//#if HELD == 0
// [COLUMNS][8 lanes] each; zero at first.
var<workgroup> key_sums: array<vec4<f32>, $(COLUMNS * 8)>;
var<workgroup> value_sums: array<vec4<f32>, $(COLUMNS * 8)>;
//#end

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(subgroup_invocation_id) lane: u32) {
  let tile = group.x + group.y * groups.x;
  if (tile >= size.total) { return; }
  // The z is always 0. A loop bound that is plainly a uniform makes Mesa compile the kernel anew for each value of it.
  let vectors = size.vectors + group.z;
  let kv_heads = size.heads / size.group;
  let kv_head = tile / size.tiles % kv_heads;
  let part = tile / size.tiles / kv_heads * $(COLUMNS / 4)u;
  let row_base = tile % size.tiles * 32u;
  let row = row_base + lane * 4u;
  let key = vec4<i32>(i32(row)) + vec4<i32>(0, 1, 2, 3);
//#for c in 0..4
  let own$c = (min(row + $(c)u, size.keys - 1u) * kv_heads + kv_head) * size.vectors;
//#end

  // The queries that see any of these keys lie in the blocks from_block ... to_block - 1.
  var from_block = 0x7fffffffu;
  var to_block = 0u;
  for (var b = lane; b < size.blocks + group.z; b += 8u) {
    let range = blocks[b];
    if (range.x < i32(row_base) + 32 && range.y > i32(row_base)) {
      from_block = min(from_block, b);
      to_block = b + 1u;
    }
  }
  from_block = subgroupMin(from_block);
  to_block = subgroupMax(to_block);

//#if HELD > 0
//#include attention_held_subgroup8 with OWN = k, OWN_ROW = k_own, OWN_ROWS = 4, KEPT = k_kept
//#include attention_held_subgroup8 with OWN = v, OWN_ROW = v_own, OWN_ROWS = 4, KEPT = v_kept
//#for d in 0..4 * HELD
  var key_sum$d = vec4<f32>();
  var value_sum$d = vec4<f32>();
//#end
//#end
  for (var member = 0u; member < size.group + group.z; member++) {
    let head = kv_head * size.group + member;
    for (var query = from_block * 16u; query < to_block * 16u; query += $(QUERIES)u) {
//#for j in 0..QUERIES
      var s$j = vec4<f32>();
      var p$j = vec4<f32>();
//#end
//#for i in 0..QUERIES / 8
      let inside$i = query + $(i * 8)u + lane < size.queries;
      let at_query$i = min(query + $(i * 8)u + lane, size.queries - 1u);
      let known$i = rows[head * size.queries + at_query$i];
      let normaliser$i = bitcast<f32>(known$i.x);
      let delta$i = bitcast<f32>(known$i.y);
      let first$i = bitcast<i32>(known$i.z);
      let last$i = select(0, bitcast<i32>(known$i.w), inside$i);
      let spread$i = (at_query$i * size.heads + head) * size.vectors;
//#end
//#include attention_products_subgroup8 with OUT = s, SPREAD = q, SPREAD_ROWS = QUERIES, OWN = k, OWN_ROWS = 4, KEPT = k_kept
//#include attention_products_subgroup8 with OUT = p, SPREAD = dout, SPREAD_ROWS = QUERIES, OWN = v, OWN_ROWS = 4, KEPT = v_kept
//#for j in 0..QUERIES
//#if SOFT_CAP
      s$j = tanh_vec4(s$j * size.inner);
      let slope$j = 1.0 - s$j * s$j;
//#end
      s$j = select(vec4<f32>(), exp2(s$j * size.factor - subgroupBroadcast(normaliser$(j / 8), $(j % 8)u)),
        (vec4<i32>(subgroupBroadcast(first$(j / 8), $(j % 8)u)) <= key) &
        (vec4<i32>(subgroupBroadcast(last$(j / 8), $(j % 8)u)) > key));
      p$j = s$j * (p$j - subgroupBroadcast(delta$(j / 8), $(j % 8)u));
//#if SOFT_CAP
      p$j *= slope$j;
//#end
//#end
//#if HELD > 0
//#for t in 0..HELD
//#for d in 0..4
      var dk$(4 * t + d) = vec4<f32>();
//#for j in 0..QUERIES
      dk$(4 * t + d) += subgroupBroadcast(q$(t * QUERIES / 8 + j / 8)[$d], $(j % 8)u) * p$j;
//#end
      key_sum$(4 * t + d) += dk$(4 * t + d);
      var dv$(4 * t + d) = vec4<f32>();
//#for j in 0..QUERIES
      dv$(4 * t + d) += subgroupBroadcast(dout$(t * QUERIES / 8 + j / 8)[$d], $(j % 8)u) * s$j;
//#end
      value_sum$(4 * t + d) += dv$(4 * t + d);
//#end
//#end
//#else
      var at = lane;
      for (var t = part; t < min(part + $(COLUMNS / 4)u, vectors); t++) {
//#for i in 0..QUERIES / 8
        let a$i = q[spread$i + t];
        let e$i = dout[spread$i + t];
//#end
//#for d in 0..4
        var dk$d = vec4<f32>();
//#for j in 0..QUERIES
        dk$d += subgroupBroadcast(a$(j / 8)[$d], $(j % 8)u) * p$j;
//#end
        key_sums[at + $(d * 8)u] += dk$d;
        var dv$d = vec4<f32>();
//#for j in 0..QUERIES
        dv$d += subgroupBroadcast(e$(j / 8)[$d], $(j % 8)u) * s$j;
//#end
        value_sums[at + $(d * 8)u] += dv$d;
//#end
        at += 32u;
      }
//#end
    }
  }

//#include turns
  let whole = select(bitcast<f32>(0x7fc00000u + group.z), 1.0, alive == 1u);
  let scale = size.scale * whole;
//#if HELD > 0
//#for t in 0..HELD
//#for d in 0..4
  key_sum$(4 * t + d) *= scale;
  value_sum$(4 * t + d) *= whole;
//#end
//#for c in 0..4
  if (row + $(c)u < size.keys) {
    dk[own$c + $(t)u] =
      vec4<f32>(key_sum$(4 * t)[$c], key_sum$(4 * t + 1)[$c], key_sum$(4 * t + 2)[$c], key_sum$(4 * t + 3)[$c]);
    dv[own$c + $(t)u] =
      vec4<f32>(value_sum$(4 * t)[$c], value_sum$(4 * t + 1)[$c], value_sum$(4 * t + 2)[$c], value_sum$(4 * t + 3)[$c]);
  }
//#end
//#end
//#else
  var at = lane;
  for (var t = part; t < min(part + $(COLUMNS / 4)u, vectors); t++) {
//#for d in 0..4
    let dk$d = key_sums[at + $(d * 8)u] * scale;
    let dv$d = value_sums[at + $(d * 8)u] * whole;
//#end
//#for c in 0..4
    if (row + $(c)u < size.keys) {
      dk[own$c + t] = vec4<f32>(dk0[$c], dk1[$c], dk2[$c], dk3[$c]);
      dv[own$c + t] = vec4<f32>(dv0[$c], dv1[$c], dv2[$c], dv3[$c]);
    }
//#end
    at += 32u;
  }
//#end
}
