// Four neighbours in memory of an operand of a matrix product, from (r, k) on; 0 beyond its edges and from `end` on.
// Constants: NAME of the function, READ (of the one that reads), ACROSS (neighbours lie along K; else along r), VALUES that are read at once
// (4 where rows in memory are a multiple of 4, else 1), ROWS and STRIDE (what size calls the extent of r, and the length of a row in memory),
// BASE (where the operand begins).
fn $NAME(r: u32, k: u32, end: u32) -> vec4<f32> {
//#if ACROSS
  let i = $BASE + r * size.$STRIDE + k;
//#else
  let i = $BASE + k * size.$STRIDE + r;
//#end
  var values = vec4<f32>();
//#if VALUES == 4
  if (r < size.$ROWS && k < end) { values = $READ(i / 4u); }
//#else
//#for e in 0..4
//#if ACROSS
  if (r < size.$ROWS && k + $(e)u < end) { values[$e] = $READ(i + $(e)u); }
//#else
  if (r + $(e)u < size.$ROWS && k < end) { values[$e] = $READ(i + $(e)u); }
//#end
//#end
//#end
  return values;
}
