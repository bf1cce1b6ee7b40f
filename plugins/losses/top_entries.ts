/**
 * The k largest logits of a row: WGSL for row losses, and the same in f64.
 *
 * @module
 */

/** Stands for "no entry" where a row has fewer than k finite logits. */
export const NO_ENTRY = "0xffffffffu";

/**
 * WGSL of `$ids_SIDE: array<u32, k>` and `fn $find_SIDE()`, which fills it with the ids of the k largest logits, largest first, at
 * ties the lower id first. One sweep over the row for each of the k. Call it in uniform control flow.
 */
export function topEntries(side: "student" | "teacher", k: number): string {
  return `
    var<private> $ids_${side}: array<u32, ${k}>;
    fn $find_${side}() {
      var before = 0.0;
      var last = 0u;
      for (var place = 0u; place < ${k}u; place++) {
        var top = -3.0e38;
        var at = ${NO_ENTRY};
        for (var v = lane; v < row_vocabulary; v += LANES) {
          let z = ${side}(v);
          if ((place == 0u || z < before || (z == before && v > last)) && z > top) { top = z; at = v; }
        }
        before = row_max(top);
        last = row_min_u32(select(${NO_ENTRY}, at, top == before));
        $ids_${side}[place] = last;
      }
    }`;
}

/** Ids of the k largest finite logits, largest first, at ties the lower id first. */
export function topIds(logits: Float64Array, k: number): number[] {
  return [...logits.keys()].filter((v) => logits[v]! > -3e38)
    .sort((a, b) => logits[b]! - logits[a]! || a - b).slice(0, k);
}
