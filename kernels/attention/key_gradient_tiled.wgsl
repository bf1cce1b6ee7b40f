// Gradients of attention with respect to its keys and values, for hardware GPUs. The weights p are recomputed, never stored.
//
//   dv[j, g] = sum_{h in g} sum_i p[i, j] dout[i, h],  dk[j, g] = scale * sum_{h in g} sum_i ds[i, j] q[i, h],
//   ds[i, j] = p[i, j] (dout[i, h] . v[j, g] - delta[i, h]),
//   p[i, j] = exp(scale * q[i, h] . k[j, g] - logsumexp[h, i]) for start[i] <= j < end[i], else 0  (arXiv 2205.14135, B.4)
//
// Bindings: q and dout [T, heads * D], k, v, dk, dv [S, heads / group * D], rows [heads, T] and blocks [ceil(T / 16)] (see
// attention_rows.wgsl).
//
// A workgroup of THREADS makes ROWS keys of one group of heads from BLOCK queries at a time, head after head: the order of the sums is
// fixed. Laid out, and with constants, as attention_forward_tiled.wgsl with the parts of queries and keys exchanged.
// Limits: D a multiple of 4. With APART a workgroup has one head of the group, and dk and dv [group, S, heads / group * D] are to be summed.

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

// SLICE dimensions of k or v, then of q or dout, four rows a vector; or [HELD][ACROSS] vectors of dout or q.
var<workgroup> slices: array<vec4<f32>, $VALUES>;
var<workgroup> weights: array<vec4<f32>, $(BLOCK * (ROWS / 4 + 1))>; // [BLOCK queries][ROWS / 4 + 1]: p or ds, four keys a vector
var<workgroup> known: array<vec4<u32>, $BLOCK>; // rows of these queries
var<workgroup> from_blocks: array<u32, $THREADS>;
var<workgroup> to_blocks: array<u32, $THREADS>;
var<workgroup> hull_of_all: vec2<u32>;

@compute @workgroup_size($THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let tile = group.x + group.y * groups.x;
  if (tile >= size.total) { return; }
  // The z is always 0. Mesa compiles a kernel anew for each value of a loop bound that is plainly a uniform, and unrolls loops of
  // constant length: minutes of compilation on software adapters.
  let vectors = size.vectors + group.z;
  let depth = $(BLOCK)u + group.z;
  let kv_heads = size.heads / size.group;
  let kv_head = tile / size.tiles % kv_heads;
//#if APART
  let member = tile / size.tiles / kv_heads % size.group;
  let part = tile / size.tiles / size.heads * $(COLUMNS * ACROSS)u;
  let made_row = member * size.keys;
//#else
  let part = tile / size.tiles / kv_heads * $(COLUMNS * ACROSS)u;
  let made_row = 0u;
//#end
  let row = tile % size.tiles * $(ROWS)u;
  let ty = thread / $(ACROSS)u;
  let tx = thread % $(ACROSS)u;

  // The queries that see any of these keys lie in the blocks hull.x ... hull.y - 1.
  var from_block = 0x7fffffffu;
  var to_block = 0u;
  for (var b = thread; b < size.blocks + group.z; b += $(THREADS)u) {
    let range = blocks[b];
    if (range.x < i32(row) + $ROWS && range.y > i32(row)) {
      from_block = min(from_block, b);
      to_block = b + 1u;
    }
  }
  from_blocks[thread] = from_block;
  to_blocks[thread] = to_block;
  workgroupBarrier();
  if (thread == 0u) {
    for (var i = 1u; i < $(THREADS)u + group.z; i++) {
      from_block = min(from_block, from_blocks[i]);
      to_block = max(to_block, to_blocks[i]);
    }
    hull_of_all = vec2<u32>(from_block, to_block);
  }
  let hull = workgroupUniformLoad(&hull_of_all);
//#for r in 0..4
  let index$r = i32(row + ty * 4u + $(r)u);
//#for c in 0..COLUMNS
  var dk$(c)_$r = vec4<f32>();
  var dv$(c)_$r = vec4<f32>();
//#end
//#end

  let left_row = row;
  let left_last = size.keys - 1u;
  let left_heads = kv_heads;
  let left_head = kv_head;
//#if APART
  {
//#else
  for (var member = 0u; member < size.group + group.z; member++) {
//#end
    let head = kv_head * size.group + member;
    for (var query = hull.x * 16u; query < hull.y * 16u; query += $(BLOCK)u) {
      let right_row = query;
      let right_last = size.queries - 1u;
      let right_heads = size.heads;
      let right_head = head;
      if (thread < $(BLOCK)u) {
        var words = vec4<u32>(0u, 0u, 0x7fffffffu, 0u);
        if (query + thread < size.queries) { words = rows[head * size.queries + query + thread]; }
        known[thread] = words;
      }
//#for r in 0..4
//#for v in 0..VECTORS
      var s$(r)_$v = vec4<f32>();
      var p$(r)_$v = vec4<f32>();
//#end
//#end
//#include attention_products_tiled with OUT = s, LEFT = k, RIGHT = q
//#include attention_products_tiled with OUT = p, LEFT = v, RIGHT = dout

//#for v in 0..VECTORS
      {
//#for x in 0..4
        let known$x = known[(tx + $(v * ACROSS)u) * 4u + $(x)u];
//#end
        let normaliser = bitcast<vec4<f32>>(vec4<u32>(known0.x, known1.x, known2.x, known3.x));
        let delta = bitcast<vec4<f32>>(vec4<u32>(known0.y, known1.y, known2.y, known3.y));
        let first = vec4<i32>(vec4<u32>(known0.z, known1.z, known2.z, known3.z));
        let last = vec4<i32>(vec4<u32>(known0.w, known1.w, known2.w, known3.w));
//#for r in 0..4
//#if SOFT_CAP
        s$(r)_$v = tanh_vec4(s$(r)_$v * size.inner);
        let slope$r = 1.0 - s$(r)_$v * s$(r)_$v;
//#end
        s$(r)_$v = select(vec4<f32>(), exp2(s$(r)_$v * size.factor - normaliser),
          (first <= vec4<i32>(index$r)) & (last > vec4<i32>(index$r)));
        p$(r)_$v = s$(r)_$v * (p$(r)_$v - delta);
//#if SOFT_CAP
        p$(r)_$v *= slope$r;
//#end
//#end
//#for x in 0..4
        weights[((tx + $(v * ACROSS)u) * 4u + $(x)u) * $(ROWS / 4 + 1)u + ty] = vec4<f32>(s0_$v[$x], s1_$v[$x], s2_$v[$x], s3_$v[$x]);
//#end
      }
//#end
//#include attention_sums_tiled with OUT = dv, RIGHT = dout
//#for v in 0..VECTORS
//#for x in 0..4
      weights[((tx + $(v * ACROSS)u) * 4u + $(x)u) * $(ROWS / 4 + 1)u + ty] = vec4<f32>(p0_$v[$x], p1_$v[$x], p2_$v[$x], p3_$v[$x]);
//#end
//#end
//#include attention_sums_tiled with OUT = dk, RIGHT = q
    }
  }

//#for r in 0..4
  if (row + ty * 4u + $(r)u < size.keys) {
//#for c in 0..COLUMNS
    if (part + $(c * ACROSS)u + tx < size.vectors) {
      let at = ((made_row + row + ty * 4u + $(r)u) * kv_heads + kv_head) * size.vectors + part + $(c * ACROSS)u + tx;
      dk[at] = dk$(c)_$r * size.scale;
      dv[at] = dv$(c)_$r;
    }
//#end
  }
//#end
}
