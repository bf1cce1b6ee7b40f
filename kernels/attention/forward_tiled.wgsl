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
// A workgroup of 64 threads makes 32 queries of one head, 32 keys at a time. Threads form an 8 x 8 square: of the 32 x 32 scores each
// computes 4 x 4 from slices of q and k in workgroup memory, 16 dimensions at a time; of the output it owns 4 rows and every fourth
// column of 32. Rows of workgroup memory are padded by one vector against bank conflicts.
//
// Constants: COLUMNS (of the output made by one workgroup, multiple of 32). Limits: D a multiple of 4.
// A head wider than COLUMNS is made by several workgroups, each of which computes the weights anew.

//#include attention_size

@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> start: array<i32>;
@group(0) @binding(4) var<storage, read> end: array<i32>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> logsumexp: array<f32>;
@group(1) @binding(0) var<uniform> size: Size;

var<workgroup> slices: array<vec4<f32>, 288>;  // [2][16][9]: 16 dimensions of q, then of k, four rows a vector
var<workgroup> weights: array<vec4<f32>, 288>; // [32 keys][9], four queries a vector
var<workgroup> values: array<vec4<f32>, 256>; // [32 keys][8]: 32 columns of v
var<workgroup> partial: array<vec4<f32>, 64>; // [8][8 threads]: of four queries
var<workgroup> bounds: array<vec2<i32>, 33>;  // the range of each query, and the hull of them all

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let tile = group.x + group.y * groups.x;
  if (tile >= size.total) { return; }
  // The z is always 0. Mesa compiles a kernel anew for each value of a loop bound that is plainly a uniform, and unrolls loops of
  // constant length: minutes of compilation on software adapters.
  let vectors = size.vectors + group.z;
  let depth = 32u + group.z;
  let head = tile / size.tiles % size.heads;
  let part = tile / size.tiles / size.heads * $(COLUMNS / 4)u;
  let row = tile % size.tiles * 32u;
  let kv_heads = size.heads / size.group;
  let kv_head = head / size.group;
  let ty = thread / 8u;
  let tx = thread % 8u;

  if (thread < 32u) {
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
    for (var i = 1u; i < 32u; i++) { hull = vec2<i32>(min(hull.x, bounds[i].x), max(hull.y, bounds[i].y)); }
    bounds[32] = hull;
  }
  let hull = workgroupUniformLoad(&bounds[32]);
//#for r in 0..4
  let range$r = bounds[ty * 4u + $(r)u];
//#for c in 0..COLUMNS / 32
  var o$(c)_$r = vec4<f32>();
//#end
//#end
  var highest = vec4<f32>(-1e30); // of this thread's four queries
  var total = vec4<f32>();        // of this thread's keys only

  let left_row = row;
  let left_last = size.queries - 1u;
  let left_heads = size.heads;
  let left_head = head;
  for (var key = hull.x; key < hull.y; key += 32) {
    let right_row = u32(key);
    let right_last = size.keys - 1u;
    let right_heads = kv_heads;
    let right_head = kv_head;
//#for r in 0..4
    var s$r = vec4<f32>();
//#end
//#include attention_products_tiled with OUT = s, LEFT = q, RIGHT = k

    let index = vec4<i32>(key + i32(tx) * 4) + vec4<i32>(0, 1, 2, 3);
//#for r in 0..4
//#if SOFT_CAP
    s$r = tanh_vec4(s$r * size.inner);
//#end
    s$r = select(vec4<f32>(-3e38), s$r * size.factor, (index >= vec4<i32>(range$r.x)) & (index < vec4<i32>(range$r.y)));
    let highest$r = max(max(s$r.x, s$r.y), max(s$r.z, s$r.w));
//#end
    partial[thread] = vec4<f32>(highest0, highest1, highest2, highest3);
    workgroupBarrier();
    // Base 2 throughout: one multiplication less for each exponential.
    var maximum = highest;
    for (var x = 0u; x < 8u; x++) { maximum = max(maximum, partial[ty * 8u + x]); }
    let correction = exp2(highest - maximum);
    highest = maximum;
    total *= correction;
//#for r in 0..4
    s$r = exp2(s$r - maximum[$r]);
    total[$r] += (s$r.x + s$r.y) + (s$r.z + s$r.w);
//#for c in 0..COLUMNS / 32
    o$(c)_$r *= correction[$r];
//#end
//#end
//#for x in 0..4
    weights[(tx * 4u + $(x)u) * 9u + ty] = vec4<f32>(s0[$x], s1[$x], s2[$x], s3[$x]);
//#end

//#include attention_sums_tiled with OUT = o, RIGHT = v
  }

  partial[thread] = total;
  workgroupBarrier();
  total = vec4<f32>();
  for (var x = 0u; x < 8u; x++) { total += partial[ty * 8u + x]; }
//#for r in 0..4
  {
    let i = row + ty * 4u + $(r)u;
    let any_key = range$r.x < range$r.y;
    if (i < size.queries) {
      let inverse = select(0.0, 1.0 / total[$r], any_key);
//#for c in 0..COLUMNS / 32
      if (part + $(c * 8)u + tx < size.vectors) {
        out[(i * size.heads + head) * size.vectors + part + $(c * 8)u + tx] = o$(c)_$r * inverse;
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
