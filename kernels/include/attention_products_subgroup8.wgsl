// Products for software adapters: OUT[j] += row j of SPREAD . a lane's own rows of OWN, for j of SPREAD_ROWS.
//
// Lanes load SPREAD_ROWS / 8 rows of SPREAD each, from spread0, spread1, ... on, and spread them with subgroupBroadcast. Of OWN each lane
// has OWN_ROWS rows (4, or 1), from own0, own1, ... on. Sums: OUT0, OUT1, ... of as many lanes as OWN_ROWS.
//
// Of a head of HELD vectors (0: of too many) each lane has its rows in registers: KEPT0, KEPT1, ..., a column each, see
// attention_held_subgroup8. What is spread stays in SPREAD0, SPREAD1, ...: SPREAD_ROWS / 8 for each vector.
//#if HELD > 0
//#for t in 0..HELD
//#for i in 0..SPREAD_ROWS / 8
    let $SPREAD$(t * SPREAD_ROWS / 8 + i) = $SPREAD[spread$i + $(t)u];
//#end
//#for j in 0..SPREAD_ROWS
//#for d in 0..4
    $OUT$j += subgroupBroadcast($SPREAD$(t * SPREAD_ROWS / 8 + j / 8)[$d], $(j % 8)u) * $KEPT$(4 * t + d);
//#end
//#end
//#end
//#else
    for (var t = 0u; t < vectors; t++) {
//#for i in 0..SPREAD_ROWS / 8
      let a$i = $SPREAD[spread$i + t];
//#end
//#for c in 0..OWN_ROWS
      let c$c = $OWN[own$c + t];
//#end
//#for d in 0..4
//#if OWN_ROWS == 4
      let b$d = vec4<f32>(c0[$d], c1[$d], c2[$d], c3[$d]);
//#else
      let b$d = c0[$d];
//#end
//#end
//#for j in 0..SPREAD_ROWS
//#for d in 0..4
      $OUT$j += subgroupBroadcast(a$(j / 8)[$d], $(j % 8)u) * b$d;
//#end
//#end
    }
//#end
