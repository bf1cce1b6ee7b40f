// Sum of one or two matrix products, plus an addend or onto what is there already, for hardware GPUs; any size.
//
//   out[m, n] = factor * (ratio * sum_k x2(m, k) w2(k, n) + sum_k x(m, k) w(k, n)) [+ addend[m, n]] [+ keep * out[m, n]]
//
// ORIENTATION  x          w                 used for
//   NT         x[M, K]    w[N, K]           forward: y = x W^T
//   NN         x[M, K]    w[K, N]           back to the input: dx = dy W
//   TN         x[K, M]    w[K, N]           weight gradients: dW = dy^T x
// With EXPERTS w holds several such matrices, one after another, and each 32 rows of x meet one of them; there is one product then. TN gives
// one matrix for each expert, from the rows that are its own: others are not looked at, and may hold anything.
//
// A workgroup of 64 threads makes a tile of 32 x 32 (8 x 8 threads, 4 x 4 each) from slices of 16 along K that are staged in
// workgroup memory, one column of padding against bank conflicts. Everything beyond the edge is read as zero. Blocks of 256 along
// K are summed on their own: one long sum rounds each product to the size of all before it.
//
// Constants: ORIENTATION, TERMS (1, 2), WEIGHT (storage of w; w2 is f32), VALUES (of w that are read at once: 1, or 4 where its rows are
// a multiple of 4).

struct Size {
  m: u32, n: u32, k: u32, k2: u32,
  x_stride: u32, x_column: u32, out_stride: u32, out_column: u32,
  tiles_m: u32, tiles: u32, has_addend: u32, accumulate: u32,
  keep: u32, factor: f32, ratio: f32, pad: u32,
//#if EXPERTS
  first_expert: u32, experts: u32, expert_values: u32, expert_offset: u32, // of those bound; of each; of where k begins
  tiles_n: u32,
//#end
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
//#include weights with VALUES = VALUES
@group(0) @binding(2) var<storage, read> addend: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
//#if TERMS == 2
@group(0) @binding(4) var<storage, read> x2: array<f32>;
@group(0) @binding(5) var<storage, read> w2: array<f32>;
//#end
@group(1) @binding(0) var<uniform> size: Size;
@group(1) @binding(1) var<uniform> step: array<vec4<f32>, 64>;

var<workgroup> xs: array<f32, 528>; // [16][33]: slice of x, k-major
var<workgroup> ws: array<f32, 528>; // [16][33]: slice of w, k-major

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let tile = group.x + group.y * groups.x;
  if (tile >= size.tiles) { return; }
//#if EXPERTS
//#include expert_tile with THREAD = thread, ROWS = 32
  let column = (tile % size.tiles_n) * 32u;
//#else
  let row = (tile % size.tiles_m) * 32u;
  let column = (tile / size.tiles_m) * 32u;
//#end
  let ty = thread / 8u;
  let tx = thread % 8u;
//#for r in 0..4
  var sum$r = vec4<f32>();
//#end

//#for term in 0..TERMS
  {
//#if TERMS == 2 && term == 0
    let depth = size.k2;
    let x_stride = size.k2;
    let x_column = 0u;
//#else
//#if EXPERTS && ORIENTATION == TN
    let depth = u32(range.y);
//#else
    let depth = size.k;
//#end
    let x_stride = size.x_stride;
    let x_column = size.x_column;
//#end
    for (var block = 0u; block < depth; block += 256u) {
      let end = min(block + 256u, depth);
//#for r in 0..4
      var acc$r = vec4<f32>();
//#end
      for (var k0 = block; k0 < end; k0 += 16u) {
        // 16 x 32 values of each operand, eight a thread; neighbours in memory go to neighbouring threads.
//#for i in 0..8
        {
//#if ORIENTATION == TN
          let r = thread % 32u;
          let k = thread / 32u + $(i * 2)u;
          let inside = row + r < size.m && k0 + k < depth;
//#if EXPERTS
          let index = (first_row + k0 + k) * size.m + row + r;
//#else
          let index = (k0 + k) * size.m + row + r;
//#end
//#else
          let r = thread / 16u + $(i * 4)u;
          let k = thread % 16u;
          let inside = row + r < size.m && k0 + k < depth;
          let index = (row + r) * x_stride + x_column + k0 + k;
//#end
          var value = 0.0;
//#if TERMS == 2 && term == 0
          if (inside) { value = x2[index]; }
//#else
          if (inside) { value = x[index]; }
//#end
          xs[k * 33u + r] = value;
        }
//#if VALUES == 1 || (TERMS == 2 && term == 0)
        {
//#if ORIENTATION == NT
          let c = thread / 16u + $(i * 4)u;
          let k = thread % 16u;
          let inside = column + c < size.n && k0 + k < depth;
          let index = (column + c) * depth + k0 + k;
//#else
          let c = thread % 32u;
          let k = thread / 32u + $(i * 2)u;
          let inside = column + c < size.n && k0 + k < depth;
          let index = (k0 + k) * size.n + column + c;
//#end
          var value = 0.0;
//#if TERMS == 2 && term == 0
          if (inside) { value = w2[index]; }
//#else
          if (inside) { value = weight(index); }
//#end
          ws[k * 33u + c] = value;
        }
//#end
//#end
//#if VALUES == 4 && (TERMS == 1 || term == 1)
//#for i in 0..2
        {
//#if ORIENTATION == NT
          let c = thread / 4u + $(i * 16)u;
          let k = thread % 4u * 4u;
          let index = (column + c) * depth + k0 + k;
//#else
          let c = thread % 8u * 4u;
          let k = thread / 8u + $(i * 8)u;
          let index = (k0 + k) * size.n + column + c;
//#end
          var values = vec4<f32>();
          if (column + c < size.n && k0 + k < depth) { values = weight(index / 4u); }
//#for e in 0..4
//#if ORIENTATION == NT
          ws[(k + $(e)u) * 33u + c] = values[$e];
//#else
          ws[k * 33u + c + $(e)u] = values[$e];
//#end
//#end
        }
//#end
//#end
        workgroupBarrier();
//#for k in 0..16
        {
          let at = $(k * 33)u;
          let b = vec4<f32>(ws[at + tx * 4u], ws[at + tx * 4u + 1u], ws[at + tx * 4u + 2u], ws[at + tx * 4u + 3u]);
//#for r in 0..4
          acc$r += xs[at + ty * 4u + $(r)u] * b;
//#end
        }
//#end
        workgroupBarrier();
      }
//#for r in 0..4
      sum$r += acc$r;
//#end
    }
  }
//#if TERMS == 2 && term == 0
//#for r in 0..4
  sum$r *= size.ratio;
//#end
//#end
//#end

  let keep = step[size.keep / 4u][size.keep % 4u];
//#for r in 0..4
//#for c in 0..4
  {
    let m = row + ty * 4u + $(r)u;
    let n = column + tx * 4u + $(c)u;
    if (m < size.m && n < size.n) {
//#if EXPERTS && ORIENTATION == TN
      let at = (expert * size.m + m) * size.out_stride + n;
//#else
      let at = m * size.out_stride + size.out_column + n;
//#end
      var value = sum$r[$c] * size.factor;
      if (size.has_addend != 0u) { value += addend[at]; }
      if (size.accumulate == 1u && keep != 0.0) { value += keep * out[at]; }
      if (size.accumulate == 2u) { value += out[at]; }
      out[at] = value;
    }
  }
//#end
//#end
}
