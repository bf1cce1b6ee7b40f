/**
 * The difference of two rows of different lengths, each in falling order: S(u, v) = sum over k of |u_(k) - v_(k)|, the shorter padded with
 * zeros; in WGSL for group losses, and in f64.
 *
 * @module
 */

/**
 * WGSL of a loop over `count` entries. Eight lanes take eight of them a turn: Mesa's software driver, for which they are, ends all loops of a
 * thread after 65,535 turns together.
 *
 * @param body Wants an entry, which may be one too many
 * @param after What follows a turn
 */
export function groupSweep(count: string, body: (entry: string) => string, after = ""): string {
  const loop = (each: number) =>
    `for (var first = lane; first < ${count}; first += ${each}u * LANES) {
          ${Array.from({ length: each }, (_, u) => body(`first + ${u}u * LANES`)).join("\n          ")}
          ${after}
        }`;
  return `if (LANES <= 8u) {
        ${loop(8)}
      } else {
        ${loop(1)}
      }`;
}

/**
 * WGSL of `$compare_sorted() -> f32`, which leaves sum_k u_(k) sign(u_(k) - v_(k)) in `$mean`, and of `$slope_of(v)`, the sign at the
 * learner's token v. Equal logits of the learner stand in the order of their ids; where both are equal the sign is 0. Wants `groupSorts`, and
 * `$sorted(id) -> f32`, the learner's u of a token as it is sorted.
 */
export const SORTED_DIFFERENCE = `
    var<private> $slopes: u32;
    var<private> $mean: f32;
    fn $compare_sorted() -> f32 {
      // Three thirds: the sorted target in one, the sorted learner in another, in the last the sign of each entry.
      let third = max(row_vocabulary, row_teacher_vocabulary);
      let wanted = $sort_teacher(0u, third);
      let own = $sort_student(third - wanted, 2u * third);
      $slopes = 3u * third - wanted - own;
      var total = 0.0;
      $mean = 0.0;
      // Sums of blocks are added up: a lane of a wide row has many terms.
      var part = vec2<f32>();
      ${
  groupSweep("third", (k) =>
    `part += $difference(${k}, own, wanted);`, "total += part.x; $mean += part.y; part = vec2<f32>();")
}
      let value = row_sum(total);
      $mean = row_sum($mean);
      row_barrier();
      return value;
    }
    // |u_(k) - v_(k)| and u_(k) times its sign, which becomes the slope of the learner's k-th token.
    fn $difference(k: u32, own: u32, wanted: u32) -> vec2<f32> {
      var u = 0.0;
      var v = 0.0;
      var id = 0u;
      if (k < row_vocabulary) {
        id = $load(own + k);
        u = $sorted(id);
      }
      if (k < row_teacher_vocabulary) { v = exp($logV($logit_of($load(wanted + k)))); }
      let slope = sign(u - v);
      if (k < row_vocabulary) { $store($slopes + id, bitcast<u32>(slope)); }
      return vec2<f32>(abs(u - v), u * slope);
    }
    fn $slope_of(v: u32) -> f32 { return bitcast<f32>($load($slopes + v)); }`;

/** The same in f64; `slopes` has dS/du of each entry of u. */
export function sortedDifference(
  u: Float64Array,
  v: Float64Array,
): { value: number; slopes: Float64Array } {
  const wanted = v.toSorted().reverse();
  const order = [...u.keys()].sort((a, b) => u[b]! - u[a]! || a - b);
  const slopes = new Float64Array(u.length);
  let value = 0;
  for (let k = 0; k < Math.max(u.length, v.length); k++) {
    const id = order[k];
    const difference = (id === undefined ? 0 : u[id]!) - (wanted[k] ?? 0);
    if (id !== undefined) slopes[id] = Math.sign(difference);
    value += Math.abs(difference);
  }
  return { value, slopes };
}
