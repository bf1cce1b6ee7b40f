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
// A workgroup makes a tile of ROWS x COLUMNS values, each thread ROWS_EACH x COLUMNS_EACH of them, from slices of DEPTH along K. While a slice
// is multiplied, the next one is on its way from memory to registers; with two PANELS it needs one barrier. Everything beyond an edge is 0.
//
// A panel holds units of four neighbours in memory. Those that lie along K (x in NT and NN, w in NT) are stored by their place along K, then by
// row, so that threads side by side read units side by side; ^ spreads those that one row brings over the banks of the memory. Such an
// operand's rows go to threads in turn, those of the others by fours.
//
// LANES, where it is not 0, is the size of a subgroup: each makes ROWS_EACH rows, and its lanes hold their slice of x in registers, from where
// they spread it; no panel of x exists then.
//
// With TOGETHER > 0 several products, of one term, are made at once; see product_size.
//
// With ROPE the output is queries or keys, which are turned before they are stored; see product_rope. It is NT then, and K is not split.
//
// COMPUTE f16: both operands are rounded to f16 on their way into the panels, those of each row of x after they were multiplied by a power of
// two that row_scales.wgsl makes of its largest one, those of w after they were multiplied by 64; products are summed in f32. Values of w from
// 1024 on become the largest f16. There is one product then, and not TN.
//
// Constants: ORIENTATION, ROWS, COLUMNS, ROWS_EACH, COLUMNS_EACH, THREADS, DEPTH, PANELS (1, 2), LANES, X_UNITS (of x that a thread
// brings of a slice), GROUPS (of four values along K that are
// multiplied in one turn of a loop), BLOCK (so deep a sum is added to the others on its own: a long sum rounds each product to the size of
// all before it; 0 for no blocks), SPLIT (K is split between workgroups, in parts of part_depth, each with an output of its own), TERMS,
// TOGETHER, EXPERTS, ROPE, WEIGHT, XV, WV, SV, OV, COMPUTE (f32, f16). Limits: units of a panel are a multiple of threads, ROWS and COLUMNS of 8.

//#if COMPUTE == f16
enable f16;

//#end
//#include product_size
//#include product_operands
//#if ROPE
//#include product_rope with TABLE = 2, OUT = 3
//#else
//#include product_store with ADDEND = 2, OUT = 3
//#end

//#if COMPUTE == f16
// Of each row of x: what it is multiplied by, and the inverse of that and of what w is multiplied by.
@group(0) @binding(4) var<storage, read> row_scales: array<vec2<f32>>;

//#end
//#if LANES == 0
var<workgroup> xs: array<vec4<$COMPUTE>, $(PANELS * ROWS * DEPTH / 4)>;
//#end
var<workgroup> ws: array<vec4<$COMPUTE>, $(PANELS * COLUMNS * DEPTH / 4)>;

@compute @workgroup_size($THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
//#if LANES == 0
        @builtin(local_invocation_index) thread: u32) {
  let ty = thread / $(COLUMNS / COLUMNS_EACH)u;
  let tx = thread % $(COLUMNS / COLUMNS_EACH)u;
//#else
        @builtin(subgroup_id) ty: u32, @builtin(subgroup_invocation_id) tx: u32) {
  let thread = ty * $(LANES)u + tx;
//#end
//#if TOGETHER > 0
  begin_product(group.z);
  let size = sizes[group.z];
//#end
//#if SPLIT
  let launched = group.x + group.y * groups.x;
  let tile = launched % size.tiles;
  let part = launched / size.tiles;
  if (part * size.part_depth >= size.k) { return; }
  out_base = part * size.m * size.n;
//#else
  let tile = group.x + group.y * groups.x;
  if (tile >= size.tiles) { return; }
//#end
//#if EXPERTS
//#include expert_tile with THREAD = thread, ROWS = ROWS
  let column = (tile % size.tiles_n) * $(COLUMNS)u;
//#if ORIENTATION == TN
  x_base = first_row * size.m;
  out_base = expert * size.m * size.out_stride;
//#else
  x_base = size.x_column;
//#end
//#else
  let row = (tile % size.tiles_m) * $(ROWS)u;
  let column = (tile / size.tiles_m) * $(COLUMNS)u;
  x_base = size.x_column;
//#end
//#if TOGETHER > 0
  x_base += size.x_begin;
  w_base = size.w_begin;
  out_base += size.out_begin;
//#end
//#for r in 0..ROWS_EACH
//#for c in 0..COLUMNS_EACH / 4
  var acc$(r)_$c = vec4<f32>();
//#if BLOCK > 0
  var sum$(r)_$c = vec4<f32>();
//#end
//#end
//#end

  // Which units a thread brings: the first of them, others are as many threads further.
//#if LANES > 0
//#if ORIENTATION == TN
  let x_r = row + ty * $(ROWS_EACH)u + tx % $(ROWS_EACH / 4)u * 4u;
  let x_k = tx / $(ROWS_EACH / 4)u;
//#else
  let x_r = row + ty * $(ROWS_EACH)u + tx / $(DEPTH / 4)u;
  let x_k = tx % $(DEPTH / 4)u * 4u;
//#end
//#for i in 0..X_UNITS
  var mine$i = vec4<f32>();
//#end
//#else
//#if ORIENTATION == TN
  let x_r = row + thread % $(ROWS / 4)u * 4u;
  let x_k = thread / $(ROWS / 4)u;
//#else
  let x_r = row + thread / $(DEPTH / 4)u;
  let x_k = thread % $(DEPTH / 4)u * 4u;
  let x_at = x_k / 4u * $(ROWS)u;
  let x_turn = x_k / 4u * $(32 / DEPTH)u;
//#if COMPUTE == f16
//#for i in 0..X_UNITS
  let x_scale$i = row_scales[min(x_r + $(i * THREADS * 4 / DEPTH)u, size.m - 1u)].x;
//#end
//#end
//#end
//#end
//#if ORIENTATION == NT
  let w_r = thread / $(DEPTH / 4)u;
  let w_k = thread % $(DEPTH / 4)u * 4u;
  let w_at = w_k / 4u * $(COLUMNS)u;
  let w_turn = w_k / 4u * $(32 / DEPTH)u;
//#if ROPE
  // The first half of the tile's columns are the first ones of its pairs.
  let first_pair = column / 2u;
//#for i in 0..COLUMNS * DEPTH / 4 / THREADS
  let w_nth$i = w_r + $(i * THREADS * 4 / DEPTH)u;
  let w_row$i = pair_column(first_pair + w_nth$i % $(COLUMNS / 2)u, w_nth$i / $(COLUMNS / 2)u);
//#end
//#end
//#else
  let w_r = thread % $(COLUMNS / 4)u * 4u;
  let w_k = thread / $(COLUMNS / 4)u;
//#end

  // The second product's slices, if any, come first.
//#if SPLIT
  let begin = part * size.part_depth;
  let end = min(begin + size.part_depth, size.k);
//#if TERMS == 2
  let end2 = select(0u, size.k2, part == 0u);
//#end
//#else
  let begin = 0u;
//#if EXPERTS && ORIENTATION == TN
  let end = u32(range.y);
//#else
  let end = size.k;
//#end
//#if TERMS == 2
  let end2 = size.k2;
//#end
//#end
//#if TERMS == 2
  let slices2 = (end2 + $(DEPTH - 1)u) / $(DEPTH)u;
//#else
  let slices2 = 0u;
//#end
  let slices = slices2 + (end - begin + $(DEPTH - 1)u) / $(DEPTH)u;
  // One turn more than there are slices: each brings one, and multiplies the one before.
  for (var slice = 0u; slice <= slices; slice++) {
//#for i in 0..X_UNITS
    var x_unit$i: vec4<f32>;
//#end
//#for i in 0..COLUMNS * DEPTH / 4 / THREADS
    var w_unit$i: vec4<f32>;
//#end
//#if TERMS == 2
    if (slice < slices2) {
      let k0 = slice * $(DEPTH)u;
//#include product_units with X_UNIT = x2_unit, W_UNIT = w2_unit, END = end2
    } else {
      let k0 = begin + (slice - slices2) * $(DEPTH)u;
//#include product_units with X_UNIT = x_unit, W_UNIT = w_unit, END = end
    }
//#else
    let k0 = begin + slice * $(DEPTH)u;
//#include product_units with X_UNIT = x_unit, W_UNIT = w_unit, END = end
//#end
//#if PANELS == 2
    let panel = slice % 2u;
    let before = 1u - panel;
//#else
    let panel = 0u;
    let before = 0u;
//#end
    if (slice > 0u) {
//#include product_slice
//#if BLOCK > 0
      if (slice % $(BLOCK / DEPTH)u == 0u) {
//#for r in 0..ROWS_EACH
//#for c in 0..COLUMNS_EACH / 4
        sum$(r)_$c += acc$(r)_$c;
        acc$(r)_$c = vec4<f32>();
//#end
//#end
      }
//#end
    }
//#if TERMS == 2
    if (slice == slices2) {
//#for r in 0..ROWS_EACH
//#for c in 0..COLUMNS_EACH / 4
//#if BLOCK > 0
      sum$(r)_$c = (sum$(r)_$c + acc$(r)_$c) * size.ratio;
      acc$(r)_$c = vec4<f32>();
//#else
      acc$(r)_$c *= size.ratio;
//#end
//#end
//#end
    }
//#end
//#if PANELS == 1
    workgroupBarrier();
//#end
//#if LANES > 0
//#for i in 0..X_UNITS
    mine$i = x_unit$i;
//#end
//#else
//#for i in 0..X_UNITS
//#if ORIENTATION == TN
    xs[panel * $(ROWS * DEPTH / 4)u + thread + $(i * THREADS)u] = x_unit$i;
//#else
//#if COMPUTE == f16
    let x_value$i = vec4<f16>(x_unit$i * x_scale$i);
//#else
    let x_value$i = x_unit$i;
//#end
    xs[panel * $(ROWS * DEPTH / 4)u + x_at + ((x_r - row + $(i * THREADS * 4 / DEPTH)u) ^ x_turn)] = x_value$i;
//#end
//#end
//#end
//#for i in 0..COLUMNS * DEPTH / 4 / THREADS
//#if COMPUTE == f16
    let w_value$i = vec4<f16>(clamp(w_unit$i * 64.0, vec4<f32>(-65504.0), vec4<f32>(65504.0)));
//#else
    let w_value$i = w_unit$i;
//#end
//#if ORIENTATION == NT
    ws[panel * $(COLUMNS * DEPTH / 4)u + w_at + ((w_r + $(i * THREADS * 4 / DEPTH)u) ^ w_turn)] = w_value$i;
//#else
    ws[panel * $(COLUMNS * DEPTH / 4)u + thread + $(i * THREADS)u] = w_value$i;
//#end
//#end
    workgroupBarrier();
  }
//#if BLOCK > 0
//#for r in 0..ROWS_EACH
//#for c in 0..COLUMNS_EACH / 4
  acc$(r)_$c += sum$(r)_$c;
//#end
//#end
//#end
//#if ROPE
//#for e in 0..COLUMNS_EACH / 2
  let pair$e = pair_of(first_pair + tx + $(e * (COLUMNS / COLUMNS_EACH))u);
//#end
//#end
  // One place that stores, with the sums moved up by one each turn: unrolled it would double the compile time.
  for (var r = 0u; r < $(ROWS_EACH)u; r++) {
//#if LANES > 0
    let m = row + ty * $(ROWS_EACH)u + r;
//#else
//#if ORIENTATION == TN
    let m = row + ty * 4u + r % 4u + r / 4u * $(ROWS / ROWS_EACH * 4)u;
//#else
    let m = row + ty + r * $(ROWS / ROWS_EACH)u;
//#end
//#end
//#if COMPUTE == f16
    let back = row_scales[min(m, size.m - 1u)].y;
//#for c in 0..COLUMNS_EACH / 4
    acc0_$c *= back;
//#end
//#end
//#if ROPE
    let turn = turn_of(m);
//#for e in 0..COLUMNS_EACH / 2
    put_pair(m, pair$e, turn, acc0_$(e / 4)[$(e % 4)], acc0_$((e + COLUMNS_EACH / 2) / 4)[$((e + COLUMNS_EACH / 2) % 4)]);
//#end
//#end
//#for c in 0..COLUMNS_EACH / 4
//#if !ROPE
//#if ORIENTATION == NT
//#for e in 0..4
    put(m, column + tx + $((c * 4 + e) * (COLUMNS / COLUMNS_EACH))u, acc0_$c[$e]);
//#end
//#else
//#if OV == 4
    put(m, column + tx * 4u + $(c * (COLUMNS / COLUMNS_EACH) * 4)u, acc0_$c);
//#else
//#for e in 0..4
    put(m, column + tx * 4u + $(c * (COLUMNS / COLUMNS_EACH) * 4 + e)u, acc0_$c[$e]);
//#end
//#end
//#end
//#end
//#for r in 0..ROWS_EACH - 1
    acc$(r)_$c = acc$(r + 1)_$c;
//#end
//#end
  }
}
