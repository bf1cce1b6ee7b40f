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
 *
 * @param k At most a few dozen: each lane has two arrays of this length
 */
export function topEntries(side: "student" | "teacher", k: number): string {
  const [logits, own] = [`$top_${side}`, `$own_${side}`];
  const take = (component: string, offset: number) =>
    `if (z.${component} > ${logits}[${k - 1}]) { $take_${side}(z.${component}, 4u * i + ${offset}u); }`;
  return `
    var<private> $ids_${side}: array<u32, ${k}>;
    var<private> ${logits}: array<f32, ${k}>;
    var<private> ${own}: array<u32, ${k}>;
    fn $take_${side}(z: f32, v: u32) {
      var place = ${k - 1}u;
      while (place > 0u) {
        if (${logits}[place - 1u] >= z) { break; }
        ${logits}[place] = ${logits}[place - 1u];
        ${own}[place] = ${own}[place - 1u];
        place--;
      }
      ${logits}[place] = z;
      ${own}[place] = v;
    }
    fn $find_${side}() {
      for (var place = 0u; place < ${k}u; place++) { ${logits}[place] = -3.0e38; }
      for (var i = lane; i < (row_vocabulary + 3u) / 4u; i += LANES) {
        let z = ${side}4(i);
        // Few entries are among the largest so far, so this is seldom true.
        if (any(z > vec4<f32>(${logits}[${k - 1}]))) {
          ${take("x", 0)}
          ${take("y", 1)}
          ${take("z", 2)}
          ${take("w", 3)}
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
