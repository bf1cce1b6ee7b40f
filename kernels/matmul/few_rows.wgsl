// Sum of one or two products of a few rows with weights, as when texts are written, for hardware GPUs; any size, NT alone.
//
//   out[m, n] = factor * (ratio * sum_k x2[m, k] w2[n, k] + sum_k x[m, k] w[n, k]) [+ addend[m, n]] [+ keep * out[m, n]]
//
// A workgroup makes COLUMNS columns of all rows. For each of them LANES threads share the sum along K: they read units of four values side by
// side, and their sums are added pairwise in workgroup memory. So w is read once, which is all the time such a product takes.
//
// Constants: ROWS (at least M), LANES (a power of two, at least ROWS), COLUMNS, TERMS, WEIGHT, XV, WV, SV; OV is 1, ORIENTATION NT.

//#include product_size
//#include product_operands
//#include product_store with ADDEND = 2, OUT = 3

var<workgroup> sums: array<f32, $(LANES * COLUMNS * ROWS)>;

@compute @workgroup_size($(LANES * COLUMNS))
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let tile = group.x + group.y * groups.x;
  if (tile >= size.tiles) { return; }
  let lane = thread % $(LANES)u;
  let column = tile * $(COLUMNS)u + thread / $(LANES)u;
  x_base = size.x_column;
//#for r in 0..ROWS
  var acc$r = 0.0;
//#end
//#if TERMS == 2
  for (var k = lane * 4u; k < size.k2; k += $(LANES * 4)u) {
    let b = w2_unit(column, k, size.k2);
//#for r in 0..ROWS
    acc$r += dot(x2_unit($(r)u, k, size.k2), b);
//#end
  }
//#for r in 0..ROWS
  acc$r *= size.ratio;
//#end
//#end
  for (var k = lane * 4u; k < size.k; k += $(LANES * 4)u) {
    let b = w_unit(column, k, size.k);
//#for r in 0..ROWS
    acc$r += dot(x_unit($(r)u, k, size.k), b);
//#end
  }
//#for r in 0..ROWS
  sums[$(r * LANES * COLUMNS)u + thread] = acc$r;
//#end
  for (var reach = $(LANES / 2)u; reach > 0u; reach /= 2u) {
    workgroupBarrier();
    if (lane < reach) {
//#for r in 0..ROWS
      sums[$(r * LANES * COLUMNS)u + thread] += sums[$(r * LANES * COLUMNS)u + thread + reach];
//#end
    }
  }
  workgroupBarrier();
  if (lane < $(ROWS)u) { put(lane, column, sums[lane * $(LANES * COLUMNS)u + thread - lane]); }
}
