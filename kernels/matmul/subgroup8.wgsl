// Sum of one or two matrix products, plus an addend or onto what is there already, for software adapters.
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
// One workgroup is one subgroup of 8 lanes and makes ROWS rows x 8 COLUMNS columns. Each lane loads different rows of x once and spreads
// them with subgroupBroadcast; loads dominate on this kind of adapter, so the tile is as large as the registers allow.
// Tiles are numbered rows first, so that neighbours share a panel of w.
//
// With TOGETHER > 0 several products, of one term, are made at once; see product_size.
//
// Constants: ORIENTATION, ROWS (8, 16, 32), COLUMNS (4 or 1), TERMS (1, 2), TOGETHER, WEIGHT (storage of w; w2 is f32), STORE (sum: out is overwritten;
// sum_and_addend; any: what the sizes say, all of the formula).
// x_column is where this launch begins along K, in x and for NT in w. Limits: K and K2 multiples of 4; for COLUMNS = 4, N a multiple of 4; for ORIENTATION = TN, M a multiple of 4.
// Rows and columns beyond the edge are computed from whatever is read there and never stored.

//#include product_size

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
//#if COLUMNS == 1 && ORIENTATION != NT
//#include weights with VALUES = 1
//#else
//#include weights with VALUES = 4
//#end
//#if COLUMNS == 4
alias Sum = vec4<f32>; // of a row, in one lane
//#else
alias Sum = f32;
//#end
@group(0) @binding(2) var<storage, read> addend: array<Sum>;
@group(0) @binding(3) var<storage, read_write> out: array<Sum>;
//#if TERMS == 2
@group(0) @binding(4) var<storage, read> x2: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> w2: array<Weight>;
//#end

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(subgroup_invocation_id) lane: u32) {
//#if TOGETHER > 0
  let size = sizes[group.z];
  let x_begin = size.x_begin / 4u;
//#if COLUMNS == 1 && ORIENTATION != NT
  let w_begin = size.w_begin;
//#else
  let w_begin = size.w_begin / 4u;
//#end
  let out_begin = size.out_begin / $(COLUMNS)u;
//#else
  let x_begin = 0u;
  let w_begin = 0u;
  let out_begin = 0u;
//#end
  let tile = group.x + group.y * groups.x;
  if (tile >= size.tiles) { return; }
//#if EXPERTS
//#include expert_tile with THREAD = lane, ROWS = ROWS
  let column = (tile % size.tiles_n) * $(8 * COLUMNS)u + lane * $(COLUMNS)u;
//#else
  let row = (tile % size.tiles_m) * $(ROWS)u;
  let column = (tile / size.tiles_m) * $(8 * COLUMNS)u + lane * $(COLUMNS)u;
//#end
//#for r in 0..ROWS
  var acc$r = Sum();
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
//#if ORIENTATION == TN
    // One load of all lanes brings the tile's rows of 32 / ROWS k, lane by lane.
    let x_step = size.m / 4u;
    let own_k = lane / $(ROWS / 4)u;
    var xi = x_begin + own_k * x_step + row / 4u + lane % $(ROWS / 4)u;
//#if EXPERTS
    xi += first_row * x_step;
//#end
//#else
//#for i in 0..ROWS / 8
    var xi$i = x_begin + ((row + $(i * 8)u + lane) * x_stride + x_column) / 4u;
//#end
//#end
//#if ORIENTATION == NT
//#for j in 0..COLUMNS
    var wi$j = w_begin + ((column + $(j)u) * x_stride + x_column) / 4u;
//#end
//#else
//#if COLUMNS == 4
    var wi = w_begin + column / 4u;
    let w_step = size.n / 4u;
//#else
    var wi = w_begin + column;
    let w_step = size.n;
//#end
//#end
    for (var k = 0u; k < depth; k += 4u) {
//#if ORIENTATION == TN
//#for i in 0..ROWS / 8
//#if TERMS == 2 && term == 0
      let a$i = size.ratio * x2[xi];
//#else
//#if EXPERTS
      let a$i = select(vec4<f32>(), x[xi], k + $(i * 32 / ROWS)u + own_k < depth);
//#else
      let a$i = x[xi];
//#end
//#end
      xi += $(32 / ROWS)u * x_step;
//#end
//#else
//#for i in 0..ROWS / 8
//#if TERMS == 2 && term == 0
      let a$i = size.ratio * x2[xi$i];
//#else
      let a$i = x[xi$i];
//#end
      xi$i += 1u;
//#end
//#end
//#if ORIENTATION == NT
//#for j in 0..COLUMNS
//#if TERMS == 2 && term == 0
      let c$j = w2[wi$j];
//#else
      let c$j = weight(wi$j);
//#end
      wi$j += 1u;
//#end
//#for kk in 0..4
//#if COLUMNS == 4
      let b$kk = vec4<f32>(c0[$kk], c1[$kk], c2[$kk], c3[$kk]);
//#else
      let b$kk = c0[$kk];
//#end
//#end
//#else
//#for kk in 0..4
//#if TERMS == 2 && term == 0
      let b$kk = w2[wi];
//#else
//#if EXPERTS && ORIENTATION == TN
      let b$kk = select(Weight(), weight(wi), k + $(kk)u < depth);
//#else
      let b$kk = weight(wi);
//#end
//#end
      wi += w_step;
//#end
//#end
//#for r in 0..ROWS
//#for kk in 0..4
//#if ORIENTATION == TN
      acc$r += subgroupBroadcast(a$(kk * ROWS / 32)[$(r % 4)], $(kk % (32 / ROWS) * (ROWS / 4) + r / 4)u) * b$kk;
//#else
      acc$r += subgroupBroadcast(a$(r / 8)[$kk], $(r % 8)u) * b$kk;
//#end
//#end
//#end
    }
  }
//#end

  if (column >= size.n) { return; }
//#if EXPERTS && ORIENTATION == TN
  var at = ((expert * size.m + row) * size.out_stride + column) / $(COLUMNS)u;
//#else
  var at = out_begin + (row * size.out_stride + size.out_column + column) / $(COLUMNS)u;
//#end
  let at_step = size.out_stride / $(COLUMNS)u;
  let rows = min($(ROWS)u, size.m - row);
//#if STORE == any
  let keep = step[size.keep / 4u][size.keep % 4u];
  // One place that stores, with the accumulators moved up by one each turn: with all that may be added, each place takes long to compile.
  for (var r = 0u; r < rows; r++) {
    var value = acc0 * size.factor;
    if (size.has_addend != 0u) { value += addend[at]; }
    if (size.accumulate == 1u && keep != 0.0) { value += keep * out[at]; }
    if (size.accumulate == 2u) { value += out[at]; }
    out[at] = value;
    at += at_step;
//#for r in 0..ROWS - 1
    acc$r = acc$(r + 1);
//#end
  }
//#else
  // Four rows a turn: as fast as all at once, in half the time to compile.
  for (var r = 0u; r < rows; r += 4u) {
//#for i in 0..4
    if (r + $(i)u < rows) {
      out[at] = acc$i * size.factor
//#if STORE == sum_and_addend
        + addend[at]
//#end
      ;
    }
    at += at_step;
//#end
//#for r in 0..ROWS - 4
    acc$r = acc$(r + 4);
//#end
  }
//#end
}
