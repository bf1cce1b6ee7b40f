// Sums what the parts of a product give whose K was split between workgroups, in their order, and stores it as the product's own kernel would.
//
//   out[m, n] = factor * sum_p parts[p, m, n] [+ addend[m, n]] [+ keep * out[m, n]]
//
// With TOGETHER > 0 those of several products; see product_size.
//
// With ROPE the output is queries or keys, which are turned before they are stored; see product_rope. A thread makes a pair of values then.
//
// Constants: TOGETHER, ROPE, OV (values of a row that a thread makes: 1, or 4 where N and where rows of the output begin are multiples of 4).
// size.k is the number of parts; size.tiles that of values, or of fours of them, or of pairs.

//#include product_size
//#if ROPE
//#include product_rope with TABLE = 1, OUT = 2

alias Out = f32;
//#else
//#include product_store with ADDEND = 1, OUT = 2
//#end

@group(0) @binding(0) var<storage, read> parts: array<Out>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
//#if TOGETHER > 0
  begin_product(group.z);
  out_base = size.out_begin;
  let parts_begin = size.x_begin / $(OV)u;
//#else
  let parts_begin = 0u;
//#end
  let i = (group.x + group.y * groups.x) * 64u + thread;
  if (i >= size.tiles) { return; }
//#if ROPE
  let m = i / (size.n / 2u);
  let pair = pair_of(i % (size.n / 2u));
  var first = 0.0;
  var second = 0.0;
  for (var part = 0u; part < size.k; part++) {
    let at = (part * size.m + m) * size.n;
    first += parts[at + pair.first];
    second += parts[at + pair.second];
  }
  put_pair(m, pair, turn_of(m), first, second);
//#else
  var sum = Out();
  for (var part = 0u; part < size.k; part++) { sum += parts[parts_begin + part * size.tiles + i]; }
  let first = i * $(OV)u;
  put(first / size.n, first % size.n, sum);
//#end
}
