// Products for software adapters: OUT[j] += row j of SPREAD . a lane's own rows of OWN, for j of SPREAD_ROWS.
//
// Lanes load SPREAD_ROWS / 8 rows of SPREAD each, from spread0, spread1, ... on, and spread them with subgroupBroadcast. Of OWN each lane
// has OWN_ROWS rows (4, or 1), from own0, own1, ... on. Sums: OUT0, OUT1, ... of as many lanes as OWN_ROWS.
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
