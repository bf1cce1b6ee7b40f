// Sum of one or two products of a few rows with weights, as when texts are written, for hardware GPUs; any size, NT alone.
//
//   out[m, n] = factor * (ratio * sum_k x2[m, k] w2[n, k] + sum_k x[m, k] w[n, k]) [+ addend[m, n]] [+ keep * out[m, n]]
//
// A workgroup makes COLUMNS columns of all rows. For every EACH of them LANES threads share the sums along K: they read units of four values
// side by side, and their sums are added pairwise in workgroup memory. So w is read once, which is most of what such a product takes, and x
// once for EACH columns.
//
// With ROPE the output is queries or keys, which are turned before they are stored; see product_rope.
//
// Constants: ROPE, ROWS (at least M), LANES (a power of two), COLUMNS, EACH, TERMS, WEIGHT, XV, WV, SV; OV is 1, ORIENTATION NT.

//#include product_size
//#include product_operands
//#if ROPE
//#include product_rope with TABLE = 2, OUT = 3
//#else
//#include product_store with ADDEND = 2, OUT = 3
//#end

var<workgroup> sums: array<f32, $(LANES * COLUMNS * ROWS)>; // [ROWS * EACH] of each thread

@compute @workgroup_size($THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let tile = group.x + group.y * groups.x;
  if (tile >= size.tiles) { return; }
  let lane = thread % $(LANES)u;
  let column = tile * $(COLUMNS)u + thread / $(LANES)u * $(EACH)u;
  x_base = size.x_column;
//#if ROPE
//#for c in 0..EACH
  let column$c = pair_column(column / 2u + $(c % (EACH / 2))u, $(c / (EACH / 2))u);
//#end
//#end
//#for r in 0..ROWS
//#for c in 0..EACH
  var acc$(r)_$c = 0.0;
//#end
//#end
//#if TERMS == 2
  for (var k = lane * 4u; k < size.k2; k += $(LANES * 4)u) {
//#for c in 0..EACH
//#if ROPE
    let b$c = w2_unit(column$c, k, size.k2);
//#else
    let b$c = w2_unit(column + $(c)u, k, size.k2);
//#end
//#end
//#for r in 0..ROWS
    {
      let a = x2_unit($(r)u, k, size.k2);
//#for c in 0..EACH
      acc$(r)_$c += dot(a, b$c);
//#end
    }
//#end
  }
//#for r in 0..ROWS
//#for c in 0..EACH
  acc$(r)_$c *= size.ratio;
//#end
//#end
//#end
  for (var k = lane * 4u; k < size.k; k += $(LANES * 4)u) {
//#for c in 0..EACH
//#if ROPE
    let b$c = w_unit(column$c, k, size.k);
//#else
    let b$c = w_unit(column + $(c)u, k, size.k);
//#end
//#end
//#for r in 0..ROWS
    {
      let a = x_unit($(r)u, k, size.k);
//#for c in 0..EACH
      acc$(r)_$c += dot(a, b$c);
//#end
    }
//#end
  }
//#for r in 0..ROWS
//#for c in 0..EACH
  sums[$((r * EACH + c) * THREADS)u + thread] = acc$(r)_$c;
//#end
//#end
  for (var reach = $(LANES / 2)u; reach > 0u; reach /= 2u) {
    workgroupBarrier();
    if (lane < reach) {
//#for i in 0..ROWS * EACH
      sums[$(i * THREADS)u + thread] += sums[$(i * THREADS)u + thread + reach];
//#end
    }
  }
  workgroupBarrier();
//#if ROPE
  for (var i = lane; i < $(ROWS * EACH / 2)u; i += $(LANES)u) {
    let m = i / $(EACH / 2)u;
    let nth = i % $(EACH / 2)u;
    let at = (m * $(EACH)u + nth) * $(THREADS)u + thread - lane;
    put_pair(m, pair_of(column / 2u + nth), turn_of(m), sums[at], sums[at + $(EACH / 2 * THREADS)u]);
  }
//#else
  for (var i = lane; i < $(ROWS * EACH)u; i += $(LANES)u) {
    put(i / $(EACH)u, column + i % $(EACH)u, sums[i * $(THREADS)u + thread - lane]);
  }
//#end
}
