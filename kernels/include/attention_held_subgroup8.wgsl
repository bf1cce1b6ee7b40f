// The columns of a lane's OWN_ROWS rows (4, or 1) of OWN, from own0, own1, ... on, in registers: KEPT0, KEPT1, ... of as many lanes.
//#for t in 0..HELD
//#for c in 0..OWN_ROWS
  let $OWN_ROW$(t * OWN_ROWS + c) = $OWN[own$c + $(t)u];
//#end
//#for d in 0..4
//#if OWN_ROWS == 4
  let $KEPT$(4 * t + d) = vec4<f32>($OWN_ROW$(4 * t)[$d], $OWN_ROW$(4 * t + 1)[$d], $OWN_ROW$(4 * t + 2)[$d], $OWN_ROW$(4 * t + 3)[$d]);
//#else
  let $KEPT$(4 * t + d) = $OWN_ROW$t[$d];
//#end
//#end
//#end
