// Operands of one or two matrix products, in units of four values: x_unit and w_unit, of the second product x2_unit and w2_unit.
// Constants: ORIENTATION, TERMS, WEIGHT; XV, WV, SV: values that are read at once of x, of w, of x2 and w2 (1 or 4).
//#if XV == 4
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;

fn read_x(i: u32) -> vec4<f32> {
//#else
@group(0) @binding(0) var<storage, read> x: array<f32>;

fn read_x(i: u32) -> f32 {
//#end
  return x[i];
}

//#include weights with VALUES = WV

const zero = 0u;
var<private> x_base: u32; // where x begins
var<private> w_base: u32; // and w

//#if ORIENTATION == TN
//#include product_unit with NAME = x_unit, READ = read_x, ACROSS = 0, VALUES = XV, ROWS = m, STRIDE = m, BASE = x_base
//#else
//#include product_unit with NAME = x_unit, READ = read_x, ACROSS = 1, VALUES = XV, ROWS = m, STRIDE = x_stride, BASE = x_base
//#end
//#if ORIENTATION == NT
//#include product_unit with NAME = w_unit, READ = weight, ACROSS = 1, VALUES = WV, ROWS = n, STRIDE = k, BASE = w_base
//#else
//#include product_unit with NAME = w_unit, READ = weight, ACROSS = 0, VALUES = WV, ROWS = n, STRIDE = n, BASE = w_base
//#end
//#if TERMS == 2

//#if SV == 4
@group(0) @binding(4) var<storage, read> x2: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> w2: array<vec4<f32>>;

fn read_x2(i: u32) -> vec4<f32> {
//#else
@group(0) @binding(4) var<storage, read> x2: array<f32>;
@group(0) @binding(5) var<storage, read> w2: array<f32>;

fn read_x2(i: u32) -> f32 {
//#end
  return x2[i];
}

//#if SV == 4
fn read_w2(i: u32) -> vec4<f32> {
//#else
fn read_w2(i: u32) -> f32 {
//#end
  return w2[i];
}

//#if ORIENTATION == TN
//#include product_unit with NAME = x2_unit, READ = read_x2, ACROSS = 0, VALUES = SV, ROWS = m, STRIDE = m, BASE = zero
//#else
//#include product_unit with NAME = x2_unit, READ = read_x2, ACROSS = 1, VALUES = SV, ROWS = m, STRIDE = k2, BASE = zero
//#end
//#if ORIENTATION == NT
//#include product_unit with NAME = w2_unit, READ = read_w2, ACROSS = 1, VALUES = SV, ROWS = n, STRIDE = k2, BASE = zero
//#else
//#include product_unit with NAME = w2_unit, READ = read_w2, ACROSS = 0, VALUES = SV, ROWS = n, STRIDE = n, BASE = zero
//#end
//#end
