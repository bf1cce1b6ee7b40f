// What both kernels of relations have in common: sizes, and the sum of a product's lanes.
struct Size {
  rows: u32, heads: u32, x_units: u32, y_units: u32, // units: vectors of a row of one head
  tiles: u32, total: u32, x_scale: f32, y_scale: f32, // tiles of 4 rows; workgroups
}

//#if VECTOR == 4
alias Unit = vec4<f32>;
//#else
alias Unit = f32;
//#end

fn total(a: Unit) -> f32 {
//#if VECTOR == 4
  return (a.x + a.y) + (a.z + a.w);
//#else
  return a;
//#end
}
