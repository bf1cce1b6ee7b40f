/**
 * Soft ranks of a few logits: WGSL for row losses, and the same in f64.
 *
 * Blondel et al., "Fast Differentiable Sorting and Ranking", arXiv 2002.08871, with L2 regularisation: for s, the values
 * over epsilon in falling order, and w = (n, ..., 1), ranks are s - v with v = argmin over v_1 >= ... >= v_n of |v - (s - w)|^2, found
 * by pooling adjacent violators. The largest value has the rank n. Where neighbours are epsilon or more apart, nothing is pooled:
 * ranks are those of a sort, and their gradient is 0.
 *
 * @module
 */

/**
 * WGSL of `fn $soft_rank(n: u32)`: ranks of `$x[0..n)` into `$rank`, and its pooled block of each into `$first` (place of the
 * block's first entry in falling order) and `$pooled` (its length), in the order `$order`.
 */
export function softRank(size: number, epsilon: number): string {
  return `
    var<private> $x: array<f32, ${size}>;
    var<private> $rank: array<f32, ${size}>;
    var<private> $order: array<u32, ${size}>;
    var<private> $first: array<u32, ${size}>;
    var<private> $pooled: array<u32, ${size}>;
    var<private> $total: array<f32, ${size}>;
    fn $soft_rank(n: u32) {
      for (var i = 0u; i < n; i++) {
        var place = i;
        while (place > 0u) {
          if ($x[$order[place - 1u]] >= $x[i]) { break; }
          $order[place] = $order[place - 1u];
          place--;
        }
        $order[place] = i;
      }
      // Blocks lie at the places of their first entries; a block's sum is of s - s_1, small numbers, and of w apart.
      var blocks = 0u;
      let top = $x[$order[0]];
      for (var i = 0u; i < n; i++) {
        $first[blocks] = i;
        $pooled[blocks] = 1u;
        $total[blocks] = ($x[$order[i]] - top) / ${f32(epsilon)} + f32(i);
        blocks++;
        while (blocks > 1u) {
          let last = blocks - 1u;
          let before = last - 1u;
          if ($total[before] * f32($pooled[last]) > $total[last] * f32($pooled[before])) { break; }
          $total[before] += $total[last];
          $pooled[before] += $pooled[last];
          blocks--;
        }
      }
      for (var b = 0u; b < blocks; b++) {
        let count = $pooled[b];
        var mean = 0.0;
        for (var i = 0u; i < count; i++) { mean += $x[$order[$first[b] + i]] - $x[$order[$first[b]]]; }
        mean /= f32(count);
        let middle = f32(n) - f32($first[b]) - f32(count - 1u) / 2.0;
        for (var i = 0u; i < count; i++) {
          let x = $x[$order[$first[b] + i]] - $x[$order[$first[b]]];
          $rank[$order[$first[b] + i]] = middle + (x - mean) / ${f32(epsilon)};
        }
      }
      $blocks = blocks;
    }
    var<private> $blocks: u32;`;
}

function f32(x: number): string {
  return Number.isInteger(x) ? `${x}.0` : String(x);
}

/** Soft ranks of some values, and what a gradient with respect to the ranks is with respect to the values. */
export function softRanks(values: readonly number[], epsilon: number): {
  ranks: number[];
  pullBack(gradient: readonly number[]): number[];
} {
  const n = values.length;
  const order = values.map((_, i) => i).sort((a, b) => values[b]! - values[a]! || a - b);
  const scaled = order.map((i) => values[i]! / epsilon);
  const blocks: { places: number[]; mean: number }[] = [];
  scaled.forEach((s, place) => {
    let block = { places: [place], mean: s - (n - place) };
    while (blocks.length > 0 && blocks.at(-1)!.mean <= block.mean) {
      const before = blocks.pop()!;
      const [a, b] = [before.places.length, block.places.length];
      block = {
        places: [...before.places, ...block.places],
        mean: (a * before.mean + b * block.mean) / (a + b),
      };
    }
    blocks.push(block);
  });
  const ranks = new Array<number>(n);
  for (const { places, mean } of blocks) {
    for (const place of places) ranks[order[place]!] = scaled[place]! - mean;
  }
  return {
    ranks,
    pullBack(gradient) {
      const result = new Array<number>(n);
      for (const { places } of blocks) {
        const mean = places.reduce((sum, place) => sum + gradient[order[place]!]!, 0) / places.length;
        for (const place of places) {
          // A block of one is a constant rank, exactly.
          result[order[place]!] = places.length === 1 ? 0 : (gradient[order[place]!]! - mean) / epsilon;
        }
      }
      return result;
    },
  };
}
