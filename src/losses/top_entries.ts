/**
 * The k largest logits of a row: WGSL for row losses, and the same in f64.
 *
 * @module
 */

/** Stands for "no entry" where a row has fewer than k finite logits. */
export const NO_ENTRY = "0xffffffffu";

/**
 * WGSL of `$ids_SIDE: array<u32, k>` and `fn $find_SIDE()`, which fills it with the ids of the k largest logits, largest first, at
 * ties the lower id first; where a row has fewer finite logits the rest is {@linkcode NO_ENTRY}. Call it in uniform control flow.
 *
 * One sweep over the row, in which each lane keeps the k largest of its share; then lanes offer the largest they have left, k times.
 * Mesa's software driver ends all loops of a thread after 65,535 turns, and runs a loop in a branch that no lane takes once all the same.
 * So sixteen entries are looked at in a turn, and a turn that takes one of them has no loop in it.
 *
 * @param k At most a few dozen: each lane has two arrays of this length
 */
export function topEntries(side: "student" | "teacher", k: number): string {
  const [logits, own] = [`$top_${side}`, `$own_${side}`];
  const quads = ["z0", "z1", "z2", "z3"];
  const highest = "max(max(z0, z1), max(z2, z3))";
  // From the last to the first, so that the lowest id stays.
  const find = quads.flatMap((z, q) =>
    ["x", "y", "z", "w"].map((c, at) => `if (${z}.${c} == z) { at = ${4 * q + at}u; }`)
  )
    .reverse();
  const push = Array.from({ length: k }, (_, i) => k - 1 - i).map((i) =>
    i === 0 ? `if (z > ${logits}[0]) { ${logits}[0] = z; ${own}[0] = v; }` : `if (z > ${logits}[${i}]) {
        let behind = z > ${logits}[${i - 1}];
        ${logits}[${i}] = select(z, ${logits}[${i - 1}], behind);
        ${own}[${i}] = select(v, ${own}[${i - 1}], behind);
      }`
  );
  return `
    var<private> $ids_${side}: array<u32, ${k}>;
    var<private> ${logits}: array<f32, ${k}>;
    var<private> ${own}: array<u32, ${k}>;
    // Behind those that are as large: they have lower ids.
    fn $take_${side}(z: f32, v: u32) {
      ${push.join("\n      ")}
    }
    fn $quad_${side}(i: u32) -> vec4<f32> {
      if (4u * i >= row_vocabulary) { return vec4<f32>(-3.0e38); }
      return ${side}4(i);
    }
    fn $highest_${side}(z: vec4<f32>) -> f32 { return max(max(z.x, z.y), max(z.z, z.w)); }
    fn $find_${side}() {
      for (var place = 0u; place < ${k}u; place++) { ${logits}[place] = -3.0e38; }
      for (var i = lane; i < (row_vocabulary + 3u) / 4u; i += 4u * LANES) {
        ${quads.map((z, q) => `var ${z} = $quad_${side}(i + ${q}u * LANES);`).join("\n        ")}
        var z = $highest_${side}(${highest});
        // Few entries are among the largest so far, so this is seldom true.
        while (z > ${logits}[${k - 1}]) {
          var at = 0u;
          ${find.join("\n          ")}
          $take_${side}(z, 4u * (i + at / 4u * LANES) + at % 4u);
          ${
    quads.map((z, q) =>
      `${z} = select(${z}, vec4<f32>(-3.0e38), vec4<u32>(at) == vec4<u32>(${
        [0, 1, 2, 3].map((c) => 4 * q + c + "u").join(", ")
      }));`
    ).join("\n          ")
  }
          z = $highest_${side}(${highest});
        }
      }
      var next = 0u;
      for (var place = 0u; place < ${k}u; place++) {
        let at = min(next, ${k - 1}u);
        let mine = select(-3.0e38, ${logits}[at], next < ${k}u);
        let top = row_max(mine);
        let offered = mine == top && mine > -3.0e38;
        let id = row_min_u32(select(${NO_ENTRY}, ${own}[at], offered));
        if (offered && id == ${own}[at]) { next++; }
        $ids_${side}[place] = id;
      }
    }`;
}

/** Ids of the k largest finite logits, largest first, at ties the lower id first. */
export function topIds(logits: Float64Array, k: number): number[] {
  return [...logits.keys()].filter((v) => logits[v]! > -3e38)
    .sort((a, b) => logits[b]! - logits[a]! || a - b).slice(0, k);
}
