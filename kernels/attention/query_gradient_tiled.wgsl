// Gradient of attention with respect to its queries, for hardware GPUs. The weights p are recomputed, never stored.
//
//   ds[i, j] = p[i, j] (dout[i, h] . v[j, g] - delta[i, h]),  dq[i, h] = scale * sum_j ds[i, j] k[j, g],
//   p[i, j] = exp(scale * q[i, h] . k[j, g] - logsumexp[h, i]) for start[i] <= j < end[i], else 0  (arXiv 2205.14135, B.4)
//
// Bindings: q and dout [T, heads * D], k and v [S, heads / group * D], rows [heads, T] (see attention_rows.wgsl),
// dq [T, heads * D].
//
// A workgroup of THREADS makes ROWS queries of one head, BLOCK keys at a time; the work is laid out, and the constants are, as in
// attention_forward_tiled.wgsl. Limits: D a multiple of 4.

//#include attention_size

@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> dq: array<vec4<f32>>;
@group(1) @binding(0) var<uniform> size: Size;

// SLICE dimensions of q or dout, then of k or v, four rows a vector; or [HELD][ACROSS] vectors of k.
var<workgroup> slices: array<vec4<f32>, $VALUES>;
var<workgroup> weights: array<vec4<f32>, $(BLOCK * (ROWS / 4 + 1))>; // [BLOCK keys][ROWS / 4 + 1]: ds, four queries a vector
var<workgroup> known: array<vec4<u32>, $ROWS>; // rows of these queries
var<workgroup> hull_of_all: vec2<i32>;

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
    var words = vec4<u32>(0u, 0u, 0x7fffffffu, 0u);
    if (row + thread < size.queries) { words = rows[head * size.queries + row + thread]; }
    known[thread] = words;
  }
  workgroupBarrier();
  if (thread == 0u) {
    var hull = vec2<i32>(0x7fffffff, 0);
    for (var i = 0u; i < $(ROWS)u + group.z; i++) {
      hull = vec2<i32>(min(hull.x, i32(known[i].z)), max(hull.y, i32(known[i].w)));
    }
    hull_of_all = hull;
  }
  let hull = workgroupUniformLoad(&hull_of_all);
//#for r in 0..4
  let known$r = known[ty * 4u + $(r)u];
//#for c in 0..COLUMNS
  var o$(c)_$r = vec4<f32>();
//#end
//#end

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
    var p$(r)_$v = vec4<f32>();
//#end
//#end
//#include attention_products_tiled with OUT = s, LEFT = q, RIGHT = k
//#include attention_products_tiled with OUT = p, LEFT = dout, RIGHT = v

//#for v in 0..VECTORS
    let index$v = vec4<i32>(key + i32(tx + $(v * ACROSS)u) * 4) + vec4<i32>(0, 1, 2, 3);
//#for r in 0..4
//#if SOFT_CAP
    s$(r)_$v = tanh_vec4(s$(r)_$v * size.inner);
//#end
    p$(r)_$v = select(vec4<f32>(),
      exp2(s$(r)_$v * size.factor - bitcast<f32>(known$r.x)) * (p$(r)_$v - bitcast<f32>(known$r.y)),
      (index$v >= vec4<i32>(i32(known$r.z))) & (index$v < vec4<i32>(i32(known$r.w))));
//#if SOFT_CAP
    p$(r)_$v *= 1.0 - s$(r)_$v * s$(r)_$v;
//#end
//#end
//#for x in 0..4
    weights[((tx + $(v * ACROSS)u) * 4u + $(x)u) * $(ROWS / 4 + 1)u + ty] = vec4<f32>(p0_$v[$x], p1_$v[$x], p2_$v[$x], p3_$v[$x]);
//#end
//#end

//#include attention_sums_tiled with OUT = o, RIGHT = k
  }

//#for r in 0..4
  {
    let i = row + ty * 4u + $(r)u;
    if (i < size.queries) {
//#for c in 0..COLUMNS
      if (part + $(c * ACROSS)u + tx < size.vectors) {
        dq[(i * size.heads + head) * size.vectors + part + $(c * ACROSS)u + tx] = o$(c)_$r * size.scale;
      }
//#end
    }
  }
//#end
}
