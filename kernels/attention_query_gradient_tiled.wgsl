// Gradient of attention with respect to its queries, for hardware GPUs. The weights p are recomputed, never stored.
//
//   ds[i, j] = p[i, j] (dout[i, h] . v[j, g] - delta[i, h]),  dq[i, h] = scale * sum_j ds[i, j] k[j, g],
//   p[i, j] = exp(scale * q[i, h] . k[j, g] - logsumexp[h, i]) for start[i] <= j < end[i], else 0  (arXiv 2205.14135, B.4)
//
// Bindings: q and dout [T, heads * D], k and v [S, heads / group * D], rows [heads, T] (see attention_rows.wgsl),
// dq [T, heads * D].
//
// A workgroup of 64 threads makes 32 queries of one head, 32 keys at a time; the work is laid out as in
// attention_forward_tiled.wgsl.
//
// Constants: COLUMNS (of the gradient made by one workgroup, multiple of 32). Limits: D a multiple of 4.

struct Size {
  queries: u32, keys: u32, heads: u32, group: u32,
  vectors: u32, tiles: u32, total: u32, factor: f32, // D / 4; tiles of queries; workgroups; scale * log2(e)
  scale: f32, pad0: u32, pad1: u32, pad2: u32,
}

@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> dq: array<vec4<f32>>;
@group(1) @binding(0) var<uniform> size: Size;

var<workgroup> slices: array<vec4<f32>, 288>;  // [2][16][9]: 16 dimensions of q or dout, then of k or v, four rows a vector
var<workgroup> weights: array<vec4<f32>, 288>; // [32 keys][9]: ds, four queries a vector
var<workgroup> values: array<vec4<f32>, 256>; // [32 keys][8]: 32 columns of k
var<workgroup> known: array<vec4<u32>, 32>;   // rows of these queries
var<workgroup> hull_of_all: vec2<i32>;

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
    var words = vec4<u32>(0u, 0u, 0x7fffffffu, 0u);
    if (row + thread < size.queries) { words = rows[head * size.queries + row + thread]; }
    known[thread] = words;
  }
  workgroupBarrier();
  if (thread == 0u) {
    var hull = vec2<i32>(0x7fffffff, 0);
    for (var i = 0u; i < 32u; i++) { hull = vec2<i32>(min(hull.x, i32(known[i].z)), max(hull.y, i32(known[i].w))); }
    hull_of_all = hull;
  }
  let hull = workgroupUniformLoad(&hull_of_all);
//#for r in 0..4
  let known$r = known[ty * 4u + $(r)u];
//#for c in 0..COLUMNS / 32
  var o$(c)_$r = vec4<f32>();
//#end
//#end

  for (var key = hull.x; key < hull.y; key += 32) {
//#for product in 0..2
//#for r in 0..4
    var s$(product)_$r = vec4<f32>();
//#end
    for (var t = 0u; t < vectors; t += 4u) {
      // A block of 4 rows x 4 dimensions a thread, turned: the first 32 threads the left operand, the others the right one.
      {
        let d = thread % 4u;
        let r = thread / 4u % 8u * 4u;
//#for i in 0..4
        var a$i = vec4<f32>();
//#end
        if (t + d < size.vectors) {
          if (thread < 32u) {
//#for i in 0..4
//#if product == 0
            a$i = q[(min(row + r + $(i)u, size.queries - 1u) * size.heads + head) * size.vectors + t + d];
//#else
            a$i = dout[(min(row + r + $(i)u, size.queries - 1u) * size.heads + head) * size.vectors + t + d];
//#end
//#end
          } else {
//#for i in 0..4
//#if product == 0
            a$i = k[(min(u32(key) + r + $(i)u, size.keys - 1u) * kv_heads + kv_head) * size.vectors + t + d];
//#else
            a$i = v[(min(u32(key) + r + $(i)u, size.keys - 1u) * kv_heads + kv_head) * size.vectors + t + d];
//#end
//#end
          }
        }
        let at = thread / 32u * 144u + d * 36u + r / 4u;
//#for x in 0..4
        slices[at + $(x * 9)u] = vec4<f32>(a0[$x], a1[$x], a2[$x], a3[$x]);
//#end
      }
      workgroupBarrier();
//#for d in 0..16
      {
        let a = slices[$(d * 9)u + ty];
        let b = slices[$(144 + d * 9)u + tx];
//#for r in 0..4
        s$(product)_$r += a[$r] * b;
//#end
      }
//#end
      workgroupBarrier();
    }
//#end

    let index = vec4<i32>(key + i32(tx) * 4) + vec4<i32>(0, 1, 2, 3);
//#for r in 0..4
    let ds$r = select(vec4<f32>(), exp2(s0_$r * size.factor - bitcast<f32>(known$r.x)) * (s1_$r - bitcast<f32>(known$r.y)),
      (index >= vec4<i32>(i32(known$r.z))) & (index < vec4<i32>(i32(known$r.w))));
//#end
//#for x in 0..4
    weights[(tx * 4u + $(x)u) * 9u + ty] = vec4<f32>(ds0[$x], ds1[$x], ds2[$x], ds3[$x]);
//#end

//#for c in 0..COLUMNS / 32
    for (var i = 0u; i < 4u; i++) {
      let r = ty + i * 8u;
      let t = part + $(c * 8)u + tx;
      var value = vec4<f32>();
      if (t < size.vectors) { value = k[(min(u32(key) + r, size.keys - 1u) * kv_heads + kv_head) * size.vectors + t]; }
      values[r * 8u + tx] = value;
    }
    workgroupBarrier();
    for (var j = 0u; j < depth; j += 4u) {
//#for jj in 0..4
      {
        let a = weights[(j + $(jj)u) * 9u + ty];
        let b = values[(j + $(jj)u) * 8u + tx];
//#for r in 0..4
        o$(c)_$r += a[$r] * b;
//#end
      }
//#end
    }
    workgroupBarrier();
//#end
  }

//#for r in 0..4
  {
    let i = row + ty * 4u + $(r)u;
    if (i < size.queries) {
//#for c in 0..COLUMNS / 32
      if (part + $(c * 8)u + tx < size.vectors) {
        dq[(i * size.heads + head) * size.vectors + part + $(c * 8)u + tx] = o$(c)_$r * size.scale;
      }
//#end
    }
  }
//#end
}
