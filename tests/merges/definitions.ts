/**
 * What merges compute, written down in f64 from their equations, with lists and sorting: slow, and unlike the methods themselves.
 *
 * @module
 */

/** A tensor of one parent, with its options. */
export interface Part {
  readonly values: readonly number[];
  readonly weight?: number;
  readonly density?: number;
  readonly gamma?: number;
  readonly epsilon?: number;
  /** 1 where an entry is kept. */
  readonly mask?: readonly number[];
}

type Vector = readonly number[];

const sum = (numbers: Vector) => numbers.reduce((a, b) => a + b, 0);
const dot = (a: Vector, b: Vector) => sum(a.map((x, i) => x * b[i]!));
const norm = (a: Vector) => Math.sqrt(dot(a, a));
const times = (a: Vector, factor: number) => a.map((x) => factor * x);
const plus = (...all: Vector[]) => all[0]!.map((_, i) => sum(all.map((a) => a[i]!)));
const minus = (a: Vector, b: Vector) => a.map((x, i) => x - b[i]!);
const weightOf = ({ weight = 1 }: Part) => weight;

/** Entries by size, the largest first, equal ones by place. */
const bySize = (a: Vector) =>
  a.map((x, i) => [Math.abs(x), i] as const).sort(([x, i], [y, j]) => y - x || i - j).map(([, i]) => i);

/** Keeps those of which `places` are the places. */
const only = (a: Vector, places: readonly number[]) => {
  const kept = new Set(places);
  return a.map((x, i) => (kept.has(i) ? x : 0));
};

/** f32 as the methods have it, so that ties are ties here too. */
export const changesOf = (base: Vector, parts: readonly Part[]): Vector[] =>
  parts.map(({ values }) => minus(values, base).map(Math.fround));

export function linear(parts: readonly Part[], normalize = true): Vector {
  const all = plus(...parts.map((p) => times(p.values, weightOf(p))));
  return normalize ? times(all, 1 / sum(parts.map(weightOf))) : all;
}

/** W_0 and a sum of changes that something was done to. */
export function added(
  base: Vector,
  changes: readonly Vector[],
  weights: Vector,
  { lambda = 1, normalize = false } = {},
): Vector {
  const all = plus(...changes.map((d, i) => times(d, weights[i]!)));
  return plus(base, times(all, lambda / (normalize ? sum(weights) : 1)));
}

/** W_0 and what agrees with the elected sign. */
export function elected(
  base: Vector,
  changes: readonly Vector[],
  weights: Vector,
  { lambda = 1, normalize = true, votes = weights } = {},
): Vector {
  return base.map((w, i) => {
    const sign = sum(changes.map((d, k) => votes[k]! * d[i]!)) >= 0 ? 1 : -1;
    const agree = changes.map((_, k) => k).filter((k) => Math.sign(votes[k]! * changes[k]![i]!) === sign);
    const total = normalize ? sum(agree.map((k) => weights[k]!)) || 1 : 1;
    return w + lambda * sum(agree.map((k) => weights[k]! * changes[k]![i]!)) / total;
  });
}

export const trimmed = (change: Vector, density: number) =>
  only(change, bySize(change).slice(0, Math.floor(density * change.length)));

/** Trimmed among all tensors of a model: what is as large as the smallest that is kept is kept too. */
export function trimmedOverModel(tensors: readonly Vector[], density: number): Vector[] {
  const sizes = tensors.flat().map(Math.abs).sort((a, b) => b - a);
  const threshold = sizes[Math.floor(density * sizes.length) - 1] ?? Infinity;
  return tensors.map((tensor) => tensor.map((x) => (Math.abs(x) >= threshold ? x : 0)));
}

export function crumbs(change: Vector, density: number, gamma: number): Vector {
  const kept = Math.floor(density * change.length);
  const top = Math.floor(gamma * change.length);
  const bottom = Math.max(0, change.length - kept - top);
  const ascending = bySize(change).toReversed();
  return density >= 1 ? change : only(change, ascending.slice(bottom, bottom + kept));
}

export function dropped(
  change: Vector,
  mask: Vector,
  density: number,
  rescaling: "density" | "l1" | "none",
): Vector {
  const left = change.map((x, i) => x * mask[i]!);
  if (rescaling === "none") return left;
  const size = (a: Vector) => sum(a.map(Math.abs));
  return times(left, rescaling === "density" ? 1 / density : size(change) / size(left));
}

/** Probability of each entry to be kept, by its rank in its row. */
export function keepProbabilities(change: Vector, width: number, density: number, epsilon: number): Vector {
  const rows = Array.from(
    { length: change.length / width },
    (_, r) => change.slice(r * width, (r + 1) * width),
  );
  return rows.flatMap((row) => {
    const places = bySize(row);
    return row.map((_, i) => {
      const rank = width - 1 - places.indexOf(i);
      return width === 1 ? density : density - epsilon + 2 * epsilon * rank / (width - 1);
    });
  });
}

export function slerp(a: Vector, b: Vector, t: number, straight = 0.9995): Vector {
  const cosine = dot(a, b) / norm(a) / norm(b);
  if (Math.abs(cosine) > straight) return plus(times(a, 1 - t), times(b, t));
  const angle = Math.acos(cosine);
  return times(plus(times(a, Math.sin((1 - t) * angle)), times(b, Math.sin(t * angle))), 1 / Math.sin(angle));
}

export function multislerp(parts: readonly Part[], base?: Vector): Vector {
  const vectors = base ? parts.map((p) => minus(p.values, base)) : parts.map((p) => p.values);
  const weights = parts.map((p) => weightOf(p) / sum(parts.map(weightOf)));
  const direction = plus(...vectors.map((v, i) => times(v, weights[i]! / norm(v))));
  const length = sum(vectors.map((v, i) => weights[i]! * norm(v)));
  const merged = times(direction, length / norm(direction));
  return base ? plus(base, merged) : merged;
}

export function karcher(vectors: readonly Vector[], steps = 10): Vector {
  const units = vectors.map((v) => times(v, 1 / norm(v)));
  let mean = plus(...units);
  mean = times(mean, 1 / norm(mean));
  for (let step = 0; step < steps; step++) {
    const logs = units.map((u) => {
      const angle = Math.acos(Math.min(1, dot(u, mean)));
      return angle < 1e-5
        ? times(u, 0)
        : times(minus(u, times(mean, Math.cos(angle))), angle / Math.sin(angle));
    });
    const tangent = times(plus(...logs), 1 / units.length);
    const length = norm(tangent);
    if (length < 1e-5) break;
    mean = plus(times(mean, Math.cos(length)), times(tangent, Math.sin(length) / length));
  }
  return times(mean, sum(vectors.map(norm)) / vectors.length);
}

export function modelStock(base: Vector, changes: readonly Vector[]): Vector {
  const count = changes.length;
  const pairs = changes.flatMap((a, i) => changes.slice(0, i).map((b) => dot(a, b) / norm(a) / norm(b)));
  const cosine = sum(pairs) / pairs.length;
  const t = count * cosine / (1 + (count - 1) * cosine);
  return plus(base, times(plus(...changes), t / count));
}

export function sce(base: Vector, changes: readonly Vector[], share: number): Vector {
  const count = changes.length;
  const variances = base.map((_, i) => {
    const mean = sum(changes.map((d) => d[i]!)) / count;
    return sum(changes.map((d) => (d[i]! - mean) ** 2)) / count;
  });
  const places = bySize(variances).slice(0, Math.floor(share * variances.filter((v) => v !== 0).length));
  const left = share < 1 ? changes.map((d) => only(d, places)) : changes;
  const squares = left.map((d) => dot(d, d) / d.length);
  const weights = squares.map((s) => s / sum(squares));
  return elected(base, left, weights, { votes: weights.map(() => 1) });
}

export const nearswap = (a: Vector, b: Vector, t: number): Vector =>
  a.map((x, i) => {
    const w = Math.min(1, Math.max(0, t / Math.max(Math.abs(b[i]! - x), 1e-6)));
    return w * b[i]! + (1 - w) * x;
  });

export function arceeFusion(base: Vector, values: Vector, width: number): Vector {
  const softmax = (row: Vector) => {
    const powers = row.map(Math.exp);
    return powers.map((x) => x / sum(powers) + 1e-8);
  };
  const divergences = Array.from({ length: values.length / width }, (_, row) => {
    const [p, q] = [values, base].map((w) => softmax(w.slice(row * width, (row + 1) * width)));
    return sum(p!.map((pj, j) => pj * Math.log(pj / q![j]!)));
  });
  const importance = values.map((x, i) => Math.abs(x - base[i]!) * divergences[Math.floor(i / width)]!);
  const sorted = importance.toSorted((a, b) => a - b);
  const quantile = (f: number) => sorted[Math.floor(f * (sorted.length - 1))]!;
  const threshold = quantile(0.5) + 1.5 * (quantile(0.75) - quantile(0.25));
  return values.map((x, i) => (importance[i]! >= threshold ? x : base[i]!));
}
