// Gradients of attention with respect to its keys and values, for hardware GPUs. The weights p are recomputed, never stored.
//
//   dv[j, g] = sum_{h in g} sum_i p[i, j] dout[i, h],  dk[j, g] = scale * sum_{h in g} sum_i ds[i, j] q[i, h],
//   ds[i, j] = p[i, j] (dout[i, h] . v[j, g] - delta[i, h]),
//   p[i, j] = exp(scale * q[i, h] . k[j, g] - logsumexp[h, i]) for start[i] <= j < end[i], else 0  (arXiv 2205.14135, B.4)
//
// Bindings: q and dout [T, heads * D], k, v, dk, dv [S, heads / group * D], rows [heads, T] and blocks [ceil(T / 16)] (see
// attention_rows.wgsl).
//
// A workgroup of 64 threads makes 32 keys of one group of heads from 32 queries at a time, head after head: the order of the sums is
// fixed. Laid out as attention_forward_tiled.wgsl with the parts of queries and keys exchanged.
//
// Constants: COLUMNS (of the gradients made by one workgroup, multiple of 32). Limits: D a multiple of 4.

struct Size {
  queries: u32, keys: u32, heads: u32, group: u32,
  vectors: u32, tiles: u32, total: u32, factor: f32, // D / 4; tiles of keys; workgroups; scale * log2(e)
  scale: f32, blocks: u32, pad0: u32, pad1: u32,
}

@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> blocks: array<vec2<i32>>;
@group(0) @binding(6) var<storage, read_write> dk: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> dv: array<vec4<f32>>;
@group(1) @binding(0) var<uniform> size: Size;

var<workgroup> slices: array<vec4<f32>, 288>;  // [2][16][9]: 16 dimensions of k or v, then of q or dout, four rows a vector
var<workgroup> weights: array<vec4<f32>, 288>; // [32 queries][9]: p or ds, four keys a vector
var<workgroup> values: array<vec4<f32>, 256>; // [32 queries][8]: 32 columns of dout or q
var<workgroup> known: array<vec4<u32>, 32>;   // rows of these queries
var<workgroup> from_blocks: array<u32, 64>;
var<workgroup> to_blocks: array<u32, 64>;
var<workgroup> hull_of_all: vec2<u32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let tile = group.x + group.y * groups.x;
  if (tile >= size.total) { return; }
  // The z is always 0. Mesa compiles a kernel anew for each value of a loop bound that is plainly a uniform, and unrolls loops of
  // constant length: minutes of compilation on software adapters.
  let vectors = size.vectors + group.z;
  let depth = 32u + group.z;
  let kv_heads = size.heads / size.group;
  let kv_head = tile / size.tiles % kv_heads;
  let part = tile / size.tiles / kv_heads * $(COLUMNS / 4)u;
  let row = tile % size.tiles * 32u;
  let ty = thread / 8u;
  let tx = thread % 8u;

  // The queries that see any of these keys lie in the blocks hull.x ... hull.y - 1.
  var from_block = 0x7fffffffu;
  var to_block = 0u;
  for (var b = thread; b < size.blocks + group.z; b += 64u) {
    let range = blocks[b];
    if (range.x < i32(row) + 32 && range.y > i32(row)) {
      from_block = min(from_block, b);
      to_block = b + 1u;
    }
  }
  from_blocks[thread] = from_block;
  to_blocks[thread] = to_block;
  workgroupBarrier();
  if (thread == 0u) {
    for (var i = 1u; i < 64u; i++) {
      from_block = min(from_block, from_blocks[i]);
      to_block = max(to_block, to_blocks[i]);
    }
    hull_of_all = vec2<u32>(from_block, to_block);
  }
  let hull = workgroupUniformLoad(&hull_of_all);
//#for r in 0..4
  let index$r = i32(row + ty * 4u + $(r)u);
//#for c in 0..COLUMNS / 32
  var dk$(c)_$r = vec4<f32>();
  var dv$(c)_$r = vec4<f32>();
//#end
//#end

  for (var member = 0u; member < size.group + group.z; member++) {
    let head = kv_head * size.group + member;
    for (var query = hull.x * 16u; query < hull.y * 16u; query += 32u) {
      if (thread < 32u) {
        var words = vec4<u32>(0u, 0u, 0x7fffffffu, 0u);
        if (query + thread < size.queries) { words = rows[head * size.queries + query + thread]; }
        known[thread] = words;
      }
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
              a$i = k[(min(row + r + $(i)u, size.keys - 1u) * kv_heads + kv_head) * size.vectors + t + d];
//#else
              a$i = v[(min(row + r + $(i)u, size.keys - 1u) * kv_heads + kv_head) * size.vectors + t + d];
//#end
//#end
            } else {
//#for i in 0..4
//#if product == 0
              a$i = q[(min(query + r + $(i)u, size.queries - 1u) * size.heads + head) * size.vectors + t + d];
//#else
              a$i = dout[(min(query + r + $(i)u, size.queries - 1u) * size.heads + head) * size.vectors + t + d];
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

//#for x in 0..4
      let known$x = known[tx * 4u + $(x)u];
//#end
      let normaliser = bitcast<vec4<f32>>(vec4<u32>(known0.x, known1.x, known2.x, known3.x));
      let delta = bitcast<vec4<f32>>(vec4<u32>(known0.y, known1.y, known2.y, known3.y));
      let first = vec4<i32>(vec4<u32>(known0.z, known1.z, known2.z, known3.z));
      let last = vec4<i32>(vec4<u32>(known0.w, known1.w, known2.w, known3.w));
//#for r in 0..4
      s0_$r = select(vec4<f32>(), exp2(s0_$r * size.factor - normaliser),
        (first <= vec4<i32>(index$r)) & (last > vec4<i32>(index$r)));
      s1_$r = s0_$r * (s1_$r - delta);
//#end

//#for sum in 0..2
//#for x in 0..4
      weights[(tx * 4u + $(x)u) * 9u + ty] = vec4<f32>(s$(sum)_0[$x], s$(sum)_1[$x], s$(sum)_2[$x], s$(sum)_3[$x]);
//#end
//#for c in 0..COLUMNS / 32
      for (var i = 0u; i < 4u; i++) {
        let r = ty + i * 8u;
        let t = part + $(c * 8)u + tx;
        var value = vec4<f32>();
        if (t < size.vectors) {
          let at = (min(query + r, size.queries - 1u) * size.heads + head) * size.vectors + t;
//#if sum == 0
          value = dout[at];
//#else
          value = q[at];
//#end
        }
        values[r * 8u + tx] = value;
      }
      workgroupBarrier();
      for (var j = 0u; j < depth; j += 4u) {
//#for jj in 0..4
        {
          let a = weights[(j + $(jj)u) * 9u + ty];
          let b = values[(j + $(jj)u) * 8u + tx];
//#for r in 0..4
//#if sum == 0
          dv$(c)_$r += a[$r] * b;
//#else
          dk$(c)_$r += a[$r] * b;
//#end
//#end
        }
//#end
      }
      workgroupBarrier();
//#end
//#end
    }
  }

//#for r in 0..4
  if (row + ty * 4u + $(r)u < size.keys) {
//#for c in 0..COLUMNS / 32
    if (part + $(c * 8)u + tx < size.vectors) {
      let at = ((row + ty * 4u + $(r)u) * kv_heads + kv_head) * size.vectors + part + $(c * 8)u + tx;
      dk[at] = dk$(c)_$r * size.scale;
      dv[at] = dv$(c)_$r;
    }
//#end
  }
//#end
}
