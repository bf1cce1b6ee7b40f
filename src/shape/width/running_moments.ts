/**
 * Means and variances of many columns at once, from blocks that come one after another.
 *
 * @module
 */

/** Sums over the tokens of one block, taken around a shift so that no digits are lost; each [in]. */
export interface BlockSums {
  readonly count: number;
  /** Near the block's mean. */
  readonly shift: ArrayLike<number>;
  /** sum_t (x - shift) */
  readonly sum: ArrayLike<number>;
  /** sum_t (x - shift)^2 */
  readonly squares: ArrayLike<number>;
}

/**
 * Mean and population variance over all tokens of all blocks, in f64. Blocks are joined by the pairwise update of Chan, Golub and LeVeque
 * ("Updating formulae and a pairwise algorithm for computing sample variances", 1979), which loses nothing however many there are.
 */
export class RunningMoments {
  #count = 0;
  readonly #mean: Float64Array;
  /** sum_t (x - mean)^2 */
  readonly #squares: Float64Array;

  constructor(width: number) {
    this.#mean = new Float64Array(width);
    this.#squares = new Float64Array(width);
  }

  get count(): number {
    return this.#count;
  }

  get mean(): Float64Array {
    return this.#mean;
  }

  get variance(): Float64Array {
    return this.#squares.map((squares) => squares / this.#count);
  }

  add(block: BlockSums): void {
    const count = this.#count + block.count;
    for (let j = 0; j < this.#mean.length; j++) {
      const { mean, squares } = momentsOf(block, j);
      const step = mean - this.#mean[j]!;
      this.#mean[j]! += step * block.count / count;
      this.#squares[j]! += squares + step * step * this.#count * block.count / count;
    }
    this.#count = count;
  }
}

/**
 * What AmoebaLLM's code (`BiasGPT.add_batch`) takes for the variance, one sample a block: the deviations of a sample are taken from a mean that
 * it has already moved, the first sample adds nothing, and sums over tokens are divided by samples.
 */
export class RunningFluctuation {
  #samples = 0;
  #count = 0;
  readonly #mean: Float64Array;
  readonly #fluctuation: Float64Array;

  constructor(width: number) {
    this.#mean = new Float64Array(width);
    this.#fluctuation = new Float64Array(width);
  }

  get count(): number {
    return this.#count;
  }

  get mean(): Float64Array {
    return this.#mean;
  }

  get variance(): Float64Array {
    return this.#fluctuation;
  }

  add(block: BlockSums): void {
    const i = this.#samples++;
    this.#count += block.count;
    for (let j = 0; j < this.#mean.length; j++) {
      const { mean, squares } = momentsOf(block, j);
      this.#mean[j] = this.#mean[j]! * (i / (i + 1)) + mean / (i + 1);
      if (i === 0) continue;
      const around = squares + block.count * (mean - this.#mean[j]!) ** 2;
      this.#fluctuation[j] = this.#fluctuation[j]! * ((i - 1) / i) + around / (i + 1);
    }
  }
}

/** Mean of a block's column and its squared deviations from it. */
function momentsOf({ count, shift, sum, squares }: BlockSums, j: number): { mean: number; squares: number } {
  const off = sum[j]! / count;
  return { mean: shift[j]! + off, squares: Math.max(0, squares[j]! - off * sum[j]!) };
}
