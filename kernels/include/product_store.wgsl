// What becomes of sums of products: put(m, n, sum) stores one value of the output, or four neighbours in a row of it.
// Constants: OV (values that are stored at once: 1, or 4 where rows of the output and where they begin are multiples of 4);
// ADDEND, OUT: bindings.
//#if OV == 4
alias Out = vec4<f32>;
//#else
alias Out = f32;
//#end
@group(0) @binding($ADDEND) var<storage, read> addend: array<Out>;
@group(0) @binding($OUT) var<storage, read_write> out: array<Out>;

var<private> out_base: u32; // where the output begins

fn put(m: u32, n: u32, sum: Out) {
  if (m >= size.m || n >= size.n) { return; }
  let at = (out_base + m * size.out_stride + size.out_column + n) / $(OV)u;
  var value = sum * size.factor;
  if (size.has_addend != 0u) { value += addend[at]; }
  let keep = step[size.keep / 4u][size.keep % 4u];
  if (size.accumulate == 1u && keep != 0.0) { value += keep * out[at]; }
  if (size.accumulate == 2u) { value += out[at]; }
  out[at] = value;
}
