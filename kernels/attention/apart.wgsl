// Attention of single queries whose ranges of keys lie apart, as those of several sequences that are written at once; forward, any adapter.
//
//   out[i, h] = sum_j p[i, j] v[j, g],  p[i, j] = softmax over start[i] <= j < end[i] of scale * q[i, h] . k[j, g]
//   logsumexp[h, i] = log sum_j exp(scale * q[i, h] . k[j, g])
//
// with g = h / group (grouped queries). An empty range gives zeros in both. Milakov and Gimelshein, arXiv 1805.02867.
//
// Bindings: q [T, heads * D], k and v [S, heads / group * D], start and end i32 [T], out [T, heads * D], logsumexp [heads, T].
//
// A workgroup of THREADS makes one query of one head and looks at its own keys alone, BLOCK at a time: each lane computes the scores of some
// keys, then all of them the weighted sum of some columns. The sums of BLOCK keys are made on their own, because one long sum rounds each
// product to the size of all before it. Two barriers a block are enough: what one array is written for, a barrier of the other has ended.
//
// Constants: THREADS, SUBGROUP (1: the workgroup is one subgroup, and lanes exchange values without a barrier, which costs Mesa's software
// driver more than all else), BLOCK (a multiple of THREADS and of 4), COLUMNS (vectors of four of the output that a lane makes). Limits: D a multiple of 4.

//#include attention_size

@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> start: array<i32>;
@group(0) @binding(4) var<storage, read> end: array<i32>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> logsumexp: array<f32>;
@group(1) @binding(0) var<uniform> size: Size;

//#if SUBGROUP
//#else
var<workgroup> query: array<vec4<f32>, $(COLUMNS * THREADS)>;
var<workgroup> range: vec2<i32>;
var<workgroup> weights: array<f32, $BLOCK>;
var<workgroup> partial: array<f32, $THREADS>;
//#end

@compute @workgroup_size($THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let tile = group.x + group.y * groups.x;
  if (tile >= size.total) { return; }
  // The z is always 0. A loop bound that is plainly a uniform makes Mesa compile the kernel anew for each value of it.
  let vectors = size.vectors + group.z;
  let head = tile % size.heads;
  let row = tile / size.heads;
  let kv_heads = size.heads / size.group;
  let kv_head = head / size.group;
  let own = (row * size.heads + head) * size.vectors;
  let own_range = vec2<i32>(max(start[row], 0), min(end[row], i32(size.keys)));
//#if SUBGROUP
  let bounds = own_range;
//#else
//#for c in 0..COLUMNS
  if (lane + $(c * THREADS)u < size.vectors) { query[lane + $(c * THREADS)u] = q[own + lane + $(c * THREADS)u]; }
//#end
  if (lane == 0u) { range = own_range; }
  let bounds = workgroupUniformLoad(&range);
//#end

  var highest = -1e30;
  var total = 0.0; // of this lane's keys only
//#for c in 0..COLUMNS
  var o$c = vec4<f32>();
  let column$c = min(lane + $(c * THREADS)u, size.vectors - 1u);
//#end
  for (var key = bounds.x; key < bounds.y; key += $BLOCK) {
//#for j in 0..BLOCK / THREADS
    var s$j = 0.0;
    let key$j = key + i32(lane) + $(j * THREADS);
    let k$j = (u32(min(key$j, bounds.y - 1)) * kv_heads + kv_head) * size.vectors;
//#end
    for (var t = 0u; t < vectors; t++) {
//#if SUBGROUP
      let a = q[own + t];
//#else
      let a = query[t];
//#end
//#for j in 0..BLOCK / THREADS
      s$j += dot(a, k[k$j + t]);
//#end
    }
    // Base 2 throughout: one multiplication less for each exponential.
    var maximum = highest;
//#for j in 0..BLOCK / THREADS
//#if SOFT_CAP
    s$j = tanh_f32(s$j * size.inner);
//#end
    s$j = select(-3e38, s$j * size.factor, key$j < bounds.y);
    maximum = max(maximum, s$j);
//#end
//#if SUBGROUP
    maximum = subgroupMax(maximum);
//#else
    partial[lane] = maximum;
    workgroupBarrier();
    for (var other = 0u; other < $(THREADS)u; other++) { maximum = max(maximum, partial[other]); }
//#end
    let correction = exp2(highest - maximum);
    highest = maximum;
    total *= correction;
//#for j in 0..BLOCK / THREADS
    s$j = exp2(s$j - maximum);
    total += s$j;
//#end
//#for c in 0..COLUMNS
    var b$c = vec4<f32>();
//#end
//#if SUBGROUP
//#for i in 0..BLOCK
    {
      // The weight of what lies beyond the range is 0.
      let w = subgroupBroadcast(s$(i / THREADS), $(i % THREADS)u);
      let values = (min(u32(key) + $(i)u, u32(bounds.y) - 1u) * kv_heads + kv_head) * size.vectors;
//#for c in 0..COLUMNS
      b$c += w * v[values + column$c];
//#end
    }
//#end
//#else
//#for j in 0..BLOCK / THREADS
    weights[lane + $(j * THREADS)u] = s$j;
//#end
    workgroupBarrier();
    let last = min(u32(bounds.y - key), $(BLOCK)u);
    // A lane beyond a narrow head has no column to sum.
    let sums = select(0u, last, lane < size.vectors);
    for (var j = 0u; j < sums; j += 4u) {
//#for i in 0..4
      {
        let w = weights[j + $(i)u];
        let values = (min(u32(key) + j + $(i)u, u32(bounds.y) - 1u) * kv_heads + kv_head) * size.vectors;
//#for c in 0..COLUMNS
        b$c += w * v[values + column$c];
//#end
      }
//#end
    }
//#end
//#for c in 0..COLUMNS
    o$c = o$c * correction + b$c;
//#end
  }

//#if SUBGROUP
  total = subgroupAdd(total);
//#else
  partial[lane] = total;
  workgroupBarrier();
  total = 0.0;
  for (var other = 0u; other < $(THREADS)u; other++) { total += partial[other]; }
//#end
//#include turns
  let broken = bitcast<f32>(0x7fc00000u + group.z);
  let any_key = bounds.x < bounds.y;
  let inverse = select(broken, select(0.0, 1.0 / total, any_key), alive == 1u);
//#for c in 0..COLUMNS
  if (lane + $(c * THREADS)u < size.vectors) { out[own + lane + $(c * THREADS)u] = o$c * inverse; }
//#end
  if (lane == 0u) {
    logsumexp[head * size.queries + row] = select(0.0, (highest + log2(total)) * 0.6931471805599453, any_key);
  }
}
