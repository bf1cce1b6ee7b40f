// Attention of each query over its own range of keys, for hardware GPUs: online softmax, never a [T, S] matrix.
//
//   out[i, h] = sum_j p[i, j] v[j, g],  p[i, j] = softmax over start[i] <= j < end[i] of scale * q[i, h] . k[j, g]
//   logsumexp[h, i] = log sum_j exp(scale * q[i, h] . k[j, g])
//
// with g = h / group (grouped queries). An empty range gives zeros in both. Milakov and Gimelshein, arXiv 1805.02867; tiling as in
// Dao et al., arXiv 2205.14135.
//
// Bindings: q [T, heads * D], k and v [S, heads / group * D], start and end i32 [T], out [T, heads * D], logsumexp [heads, T].
//
// A workgroup of THREADS makes ROWS queries of one head, BLOCK keys at a time. Threads form a rectangle, ACROSS wide: of the scores each
// computes 4 rows of VECTORS vectors of four from slices of q and k in workgroup memory, SLICE dimensions at a time; of the output it owns
// 4 rows and COLUMNS vectors, ACROSS apart. Rows of workgroup memory are padded by one vector against bank conflicts.
//
// Constants: those, HELD (keys whose values lie in workgroup memory at once), VALUES (vectors in `slices`). ROWS = 4 THREADS / ACROSS,
// BLOCK = 4 ACROSS VECTORS, at most THREADS each. Limits: D a multiple of 4.
// A head wider than 4 ACROSS COLUMNS is made by several workgroups, each of which computes the weights anew.

//#include attention_size

@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> start: array<i32>;
@group(0) @binding(4) var<storage, read> end: array<i32>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> logsumexp: array<f32>;
@group(1) @binding(0) var<uniform> size: Size;

// [SLICE][ROWS / 4 + 1] of q, then [SLICE][BLOCK / 4 + 1] of k, four rows a vector; or [HELD][ACROSS] vectors of v.
var<workgroup> slices: array<vec4<f32>, $VALUES>;
var<workgroup> weights: array<vec4<f32>, $(BLOCK * (ROWS / 4 + 1))>; // [BLOCK keys][ROWS / 4 + 1], four queries a vector
var<workgroup> partial: array<vec4<f32>, $THREADS>; // of each thread's four queries
var<workgroup> bounds: array<vec2<i32>, $(ROWS + 1)>; // the range of each query, and the hull of them all

@compute @workgroup_size($THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let tile = group.x + group.y * groups.x;
  if (tile >= size.total) { return; }
  // The z is always 0. Mesa compiles a kernel anew for each value of a loop bound that is plainly a uniform, and unrolls loops of
  // constant length: minutes of compilation on software adapters.
  let vectors = size.vectors + group.z;
  let depth = $(BLOCK)u + group.z;
  let head = tile / size.tiles % size.heads;
  let part = tile / size.tiles / size.heads * $(COLUMNS * ACROSS)u;
  let row = tile % size.tiles * $(ROWS)u;
  let kv_heads = size.heads / size.group;
  let kv_head = head / size.group;
  let ty = thread / $(ACROSS)u;
  let tx = thread % $(ACROSS)u;

  if (thread < $(ROWS)u) {
    var range = vec2<i32>(0x7fffffff, 0);
    if (row + thread < size.queries) {
      let from_row = max(start[row + thread], 0);
      let to_row = min(end[row + thread], i32(size.keys));
      if (from_row < to_row) { range = vec2<i32>(from_row, to_row); }
    }
    bounds[thread] = range;
  }
  workgroupBarrier();
  if (thread == 0u) {
    var hull = bounds[0];
    for (var i = 1u; i < $(ROWS)u + group.z; i++) { hull = vec2<i32>(min(hull.x, bounds[i].x), max(hull.y, bounds[i].y)); }
    bounds[$ROWS] = hull;
  }
  let hull = workgroupUniformLoad(&bounds[$ROWS]);
//#for r in 0..4
  let range$r = bounds[ty * 4u + $(r)u];
//#for c in 0..COLUMNS
  var o$(c)_$r = vec4<f32>();
//#end
//#end
  var highest = vec4<f32>(-1e30); // of this thread's four queries
  var total = vec4<f32>();        // of this thread's keys only

  let left_row = row;
  let left_last = size.queries - 1u;
  let left_heads = size.heads;
  let left_head = head;
  for (var key = hull.x; key < hull.y; key += $BLOCK) {
    let right_row = u32(key);
    let right_last = size.keys - 1u;
    let right_heads = kv_heads;
    let right_head = kv_head;
//#for r in 0..4
//#for v in 0..VECTORS
    var s$(r)_$v = vec4<f32>();
//#end
//#end
//#include attention_products_tiled with OUT = s, LEFT = q, RIGHT = k

//#for r in 0..4
    var highest$r = -3e38;
//#end
//#for v in 0..VECTORS
    let index$v = vec4<i32>(key + i32(tx + $(v * ACROSS)u) * 4) + vec4<i32>(0, 1, 2, 3);
//#for r in 0..4
//#if SOFT_CAP
    s$(r)_$v = tanh_vec4(s$(r)_$v * size.inner);
//#end
    s$(r)_$v = select(vec4<f32>(-3e38), s$(r)_$v * size.factor, (index$v >= vec4<i32>(range$r.x)) & (index$v < vec4<i32>(range$r.y)));
    highest$r = max(highest$r, max(max(s$(r)_$v.x, s$(r)_$v.y), max(s$(r)_$v.z, s$(r)_$v.w)));
//#end
//#end
    partial[thread] = vec4<f32>(highest0, highest1, highest2, highest3);
    workgroupBarrier();
    // Base 2 throughout: one multiplication less for each exponential.
    var maximum = highest;
    for (var x = 0u; x < $(ACROSS)u + group.z; x++) { maximum = max(maximum, partial[ty * $(ACROSS)u + x]); }
    let correction = exp2(highest - maximum);
    highest = maximum;
    total *= correction;
//#for r in 0..4
//#for v in 0..VECTORS
    s$(r)_$v = exp2(s$(r)_$v - maximum[$r]);
    total[$r] += (s$(r)_$v.x + s$(r)_$v.y) + (s$(r)_$v.z + s$(r)_$v.w);
//#end
//#for c in 0..COLUMNS
    o$(c)_$r *= correction[$r];
//#end
//#end
//#for v in 0..VECTORS
//#for x in 0..4
    weights[((tx + $(v * ACROSS)u) * 4u + $(x)u) * $(ROWS / 4 + 1)u + ty] = vec4<f32>(s0_$v[$x], s1_$v[$x], s2_$v[$x], s3_$v[$x]);
//#end
//#end

//#include attention_sums_tiled with OUT = o, RIGHT = v
  }

  partial[thread] = total;
  workgroupBarrier();
  total = vec4<f32>();
  for (var x = 0u; x < $(ACROSS)u + group.z; x++) { total += partial[ty * $(ACROSS)u + x]; }
//#for r in 0..4
  {
    let i = row + ty * 4u + $(r)u;
    let any_key = range$r.x < range$r.y;
    if (i < size.queries) {
      let inverse = select(0.0, 1.0 / total[$r], any_key);
//#for c in 0..COLUMNS
      if (part + $(c * ACROSS)u + tx < size.vectors) {
        out[(i * size.heads + head) * size.vectors + part + $(c * ACROSS)u + tx] = o$(c)_$r * inverse;
      }
//#end
      if (tx == 0u && part == 0u) {
        logsumexp[head * size.queries + i] =
          select(0.0, (highest[$r] + log2(total[$r])) * 0.6931471805599453, any_key);
      }
    }
  }
//#end
}
