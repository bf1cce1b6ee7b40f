// Attention of each query over its own range of keys, for software adapters: online softmax, never a [T, S] matrix.
//
//   out[i, h] = sum_j p[i, j] v[j, g],  p[i, j] = softmax over start[i] <= j < end[i] of scale * q[i, h] . k[j, g]
//   logsumexp[h, i] = log sum_j exp(scale * q[i, h] . k[j, g])
//
// with g = h / group (grouped queries). An empty range gives zeros in both. Milakov and Gimelshein, arXiv 1805.02867; tiling as in
// Dao et al., arXiv 2205.14135.
//
// Bindings: q [T, heads * D], k and v [S, heads / group * D], start and end i32 [T], out [T, heads * D], logsumexp [heads, T].
//
// One workgroup is one subgroup of 8 lanes and makes 8 * QUERIES queries of one head. A lane owns QUERIES neighbouring queries, so
// the softmax needs no exchange between lanes. KEYS keys (or values) at a time are loaded once, a few rows by each lane, and
// spread with subgroupBroadcast. The weighted sums stay in workgroup memory, transposed, each lane touching only its own part; those of
// KEYS keys are made on their own, because one long sum rounds each product to the size of all before it.
//
// Heads of HELD vectors (0: of more) stay in registers, queries and sums: loads and turns are most of what so narrow a head costs.
//
// Constants: QUERIES (4 or 1 a lane), KEYS (multiple of 8), COLUMNS (of the output made by one workgroup, multiple of 4), HELD.
// Limits: D a multiple of 4. A head wider than COLUMNS is made by several workgroups, each of which computes the weights anew.
// The outer loop is the same for all lanes, which Tint cannot see: it needs `diagnostic(off, subgroup_uniformity);` in front. Telling it
// through workgroupUniformLoad costs a quarter of the speed.

//#include attention_size

@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> start: array<i32>;
@group(0) @binding(4) var<storage, read> end: array<i32>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> logsumexp: array<f32>;
@group(1) @binding(0) var<uniform> size: Size;

//#if QUERIES == 4
alias Lanes = vec4<f32>;
alias Indices = vec4<i32>;
//#else
alias Lanes = f32;
alias Indices = i32;
//#end

//#if HELD == 0
// [COLUMNS][8 lanes]; zero at first.
var<workgroup> sums: array<Lanes, $(COLUMNS * 8)>;
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
  let row = tile % size.tiles * $(8 * QUERIES)u + lane * $(QUERIES)u;
  let kv_heads = size.heads / size.group;
  let kv_head = head / size.group;
  var first = Indices(0x7fffffff);
  var last = Indices(0);
//#for c in 0..QUERIES
  let own$c = (min(row + $(c)u, size.queries - 1u) * size.heads + head) * size.vectors;
  if (row + $(c)u < size.queries) {
    let from_row = max(start[row + $(c)u], 0);
    let to_row = min(end[row + $(c)u], i32(size.keys));
    if (from_row < to_row) {
//#if QUERIES == 4
      first[$c] = from_row;
      last[$c] = to_row;
//#else
      first = from_row;
      last = to_row;
//#end
    }
  }
//#end
//#if QUERIES == 4
  let from_key = subgroupMin(min(min(first.x, first.y), min(first.z, first.w)));
  let to_key = subgroupMax(max(max(last.x, last.y), max(last.z, last.w)));
//#else
  let from_key = subgroupMin(first);
  let to_key = subgroupMax(last);
//#end

//#if HELD > 0
//#include attention_held_subgroup8 with OWN = q, OWN_ROW = q_own, OWN_ROWS = QUERIES, KEPT = q_kept
//#for d in 0..4 * HELD
  var sum$d = Lanes();
//#end
//#end
  var highest = Lanes(-1e30);
  var total = Lanes();
  for (var key = from_key; key < to_key; key += $KEYS) {
//#for j in 0..KEYS
    var s$j = Lanes();
//#end
//#for i in 0..KEYS / 8
    let spread$i = (min(u32(key) + $(i * 8)u + lane, size.keys - 1u) * kv_heads + kv_head) * size.vectors;
//#end
//#include attention_products_subgroup8 with OUT = s, SPREAD = k, SPREAD_ROWS = KEYS, OWN = q, OWN_ROWS = QUERIES, KEPT = q_kept
    // Base 2 throughout: one multiplication less for each exponential.
    var maximum = highest;
//#for j in 0..KEYS
//#if SOFT_CAP
    s$j = tanh_$LANES(s$j * size.inner);
//#end
    s$j = select(Lanes(-3e38), s$j * size.factor, (first <= Indices(key + $j)) & (last > Indices(key + $j)));
    maximum = max(maximum, s$j);
//#end
    let correction = exp2(highest - maximum);
    highest = maximum;
    total *= correction;
//#for j in 0..KEYS
    s$j = exp2(s$j - maximum);
    total += s$j;
//#end
//#if HELD > 0
//#for t in 0..HELD
//#for i in 0..KEYS / 8
    let v$(t * KEYS / 8 + i) = v[spread$i + $(t)u];
//#end
//#for d in 0..4
    var o$(4 * t + d) = Lanes();
//#for j in 0..KEYS
    o$(4 * t + d) += subgroupBroadcast(v$(t * KEYS / 8 + j / 8)[$d], $(j % 8)u) * s$j;
//#end
    sum$(4 * t + d) = sum$(4 * t + d) * correction + o$(4 * t + d);
//#end
//#end
//#else
    var at = lane;
    for (var t = part; t < min(part + $(COLUMNS / 4)u, vectors); t++) {
//#for i in 0..KEYS / 8
      let a$i = v[spread$i + t];
//#end
//#for d in 0..4
      var o$d = Lanes();
//#for j in 0..KEYS
      o$d += subgroupBroadcast(a$(j / 8)[$d], $(j % 8)u) * s$j;
//#end
      sums[at + $(d * 8)u] = sums[at + $(d * 8)u] * correction + o$d;
//#end
      at += 32u;
    }
//#end
  }

//#include turns
  let broken = bitcast<f32>(0x7fc00000u + group.z);
  let any_key = last > first;
  let inverse = select(Lanes(broken), select(Lanes(), 1.0 / total, any_key), alive == 1u);
  let normaliser = select(Lanes(), (highest + log2(total)) * 0.6931471805599453, any_key);
//#if HELD > 0
//#for t in 0..HELD
//#for d in 0..4
  sum$(4 * t + d) *= inverse;
//#end
//#for c in 0..QUERIES
  if (row + $(c)u < size.queries) {
//#if QUERIES == 4
    out[own$c + $(t)u] = vec4<f32>(sum$(4 * t)[$c], sum$(4 * t + 1)[$c], sum$(4 * t + 2)[$c], sum$(4 * t + 3)[$c]);
//#else
    out[own$c + $(t)u] = vec4<f32>(sum$(4 * t), sum$(4 * t + 1), sum$(4 * t + 2), sum$(4 * t + 3));
//#end
  }
//#end
//#end
//#else
  var at = lane;
  for (var t = part; t < min(part + $(COLUMNS / 4)u, vectors); t++) {
//#for d in 0..4
    let o$d = sums[at + $(d * 8)u] * inverse;
//#end
//#if QUERIES == 4
//#for c in 0..4
    if (row + $(c)u < size.queries) { out[own$c + t] = vec4<f32>(o0[$c], o1[$c], o2[$c], o3[$c]); }
//#end
//#else
    if (row < size.queries) { out[own0 + t] = vec4<f32>(o0, o1, o2, o3); }
//#end
    at += 32u;
  }
//#end
  if (part == 0u) {
//#for c in 0..QUERIES
//#if QUERIES == 4
    if (row + $(c)u < size.queries) { logsumexp[head * size.queries + row + $(c)u] = normaliser[$c]; }
//#else
    if (row < size.queries) { logsumexp[head * size.queries + row] = normaliser; }
//#end
//#end
  }
}
