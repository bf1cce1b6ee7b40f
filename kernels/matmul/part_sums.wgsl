// Sums what the parts of a product give whose K was split between workgroups, in their order, and stores it as the product's own kernel would.
//
//   out[m, n] = factor * sum_p parts[p, m, n] [+ addend[m, n]] [+ keep * out[m, n]]
//
// With TOGETHER > 0 those of several products; see product_size.
//
// Constants: TOGETHER, OV (values of a row that a thread makes: 1, or 4 where N and where rows of the output begin are multiples of 4).
// size.k is the number of parts; size.tiles that of values, or of fours of them.

//#include product_size
//#include product_store with ADDEND = 1, OUT = 2

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
  var sum = Out();
  for (var part = 0u; part < size.k; part++) { sum += parts[parts_begin + part * size.tiles + i]; }
  let first = i * $(OV)u;
  put(first / size.n, first % size.n, sum);
}
