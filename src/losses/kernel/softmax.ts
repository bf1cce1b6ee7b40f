/**
 * Sweep 0 of a row kernel: the largest logit of each model, and for each temperature the logarithm of the sum of exponentials, in one go
 * over the row (online softmax, Milakov and Gimelshein, arXiv 1805.02867).
 *
 * Leaves `m_q`, `m_p`, the largest logits, and for the temperature numbered g `l_qg`, `l_pg`: log sum exp((z - m) / temperature).
 *
 * @module
 */
import type { CachedTarget } from "./cached_target.ts";
import { labelLogit } from "./label.ts";
import { type Side, SIDES, type Turn } from "./layout.ts";
import { rowLossSource } from "./row_loss_source.ts";
import { LEAVES, type RowScope } from "./scope.ts";

/** A model whose softmax is wanted, and the numbers of the temperatures at which. */
interface Wanted {
  readonly side: Side;
  readonly groups: readonly number[];
}

/** The sweep; nothing where no softmax is wanted. A cached target's entries are left out of it and added afterwards. */
export function softmax(scope: RowScope, cached: CachedTarget | undefined): string[] {
  const wanted = SIDES.map((side) => ({ side, groups: groupsOf(scope, cached, side) }))
    .filter(({ groups }) => groups.length > 0);
  if (wanted.length === 0) return [];
  return [
    ...(cached ? [...labelLogit(scope, "q"), ...cached.take()] : []),
    ...wanted.flatMap(({ side, groups }) => [
      `var max_${side} = -1.0e38;`,
      ...groups.map((g) => `var sum_${side}${g} = 0.0;`),
    ]),
    ...scope.layout.loop(
      wanted.flatMap(({ side, groups }) => [
        `let before_${side} = max_${side};`,
        ...groups.map((g) => `var part_${side}${g} = 0.0;`),
      ]),
      (at) => turn(scope, wanted, at),
      wanted.flatMap(({ side, groups }) =>
        groups.map((g) => {
          const rescale = `exp(${scope.tempered(`before_${side} - max_${side}`, g)})`;
          return `sum_${side}${g} = sum_${side}${g} * ${rescale} + part_${side}${g};`;
        })
      ),
    ),
    ...(cached ? cached.join(wanted[0]!.groups) : joinLanes(scope, wanted)),
    ...(scope.traced.rowLosses.length === 0 ? [] : wanted.flatMap(({ side, groups }) => [
      `row_m_${side} = m_${side};`,
      ...groups.map((g) => `row_l_${side}${g} = l_${side}${g};`),
    ])),
  ];
}

/** Temperatures at which the softmax of a side is wanted: by an expression, the cached target or a row loss. */
function groupsOf({ traced, used }: RowScope, cached: CachedTarget | undefined, side: Side): number[] {
  const call = side === "q" ? "_logQ(" : "_logP(";
  const callers = traced.rowLosses.filter(({ term }) =>
    rowLossSource(term, traced, (name) => name).includes(call)
  );
  return [...traced.groups.keys()].filter((g) =>
    used.has(LEAVES[side].logProbability(g)) || (side === "q" && cached?.groups.includes(g)) ||
    callers.some(({ group }) => group === g)
  );
}

/** One turn of a lane: the new maximum first, then the exponentials below it. */
function turn(scope: RowScope, wanted: readonly Wanted[], at: Turn): string[] {
  const { layout } = scope;
  const vectors = Array.from({ length: at.unroll }, (_, u) => u);
  return [
    ...vectors.flatMap((u) => [
      ...layout.index(at, u, String(u)),
      ...wanted.map(({ side }) => layout.load(at, side, `${side}${u}`, String(u), true)),
    ]),
    ...wanted.flatMap(({ side, groups }) => {
      const highest = pairwise(vectors.map((u) => `${side}${u}`), (a, b) => `max(${a}, ${b})`);
      return [
        `let high_${side} = ${highest};`,
        `let top_${side} = max(max_${side}, max(max(high_${side}.x, high_${side}.y), max(high_${side}.z, high_${side}.w)));`,
        ...groups.map((g) => {
          const part = `part_${side}${g}`;
          const rescale = `exp(${scope.tempered(`max_${side} - top_${side}`, g)})`;
          const exponentials = pairwise(
            vectors.map((u) => `exp(${scope.tempered(`${side}${u} - top_${side}`, g)})`),
            (a, b) => `(${a} + ${b})`,
          );
          return `${part} = ${part} * ${rescale} + dot(${exponentials}, vec4<f32>(1.0));`;
        }),
        `max_${side} = top_${side};`,
      ];
    }),
  ];
}

/** Joins neighbours until one is left. */
function pairwise(parts: readonly string[], join: (a: string, b: string) => string): string {
  if (parts.length === 1) return parts[0]!;
  return pairwise(
    parts.flatMap((p, i) => i % 2 ? [] : [parts[i + 1] ? join(p, parts[i + 1]!) : p]),
    join,
  );
}

/** From the lanes' maxima and sums to the row's. Both sides take their way over the lanes together, where both have one. */
function joinLanes(scope: RowScope, wanted: readonly Wanted[]): string[] {
  return [
    ...together("row_max", wanted.map(({ side }) => ({ name: `m_${side}`, share: `max_${side}` }))),
    ...scope.traced.groups.flatMap((_, g) => {
      const sides = wanted.filter(({ groups }) => groups.includes(g)).map(({ side }) => side);
      const shares = sides.map((side) => ({
        name: `total_${side}${g}`,
        share: `sum_${side}${g} * exp(${scope.tempered(`max_${side} - m_${side}`, g)})`,
      }));
      return [
        ...together("row_sum", shares),
        ...sides.flatMap((side) => [
          `let l_${side}${g} = log(total_${side}${g});`,
          `if (is_broken(l_${side}${g})) { poison = l_${side}${g}; }`,
        ]),
      ];
    }),
  ];
}

/** Reduces one number over the lanes, or two at once. */
function together(reduce: string, shares: readonly { name: string; share: string }[]): string[] {
  const [one, other] = shares;
  if (!one) return [];
  if (!other) return [`let ${one.name} = ${reduce}(${one.share});`];
  const both = `${one.name}_${other.name}`;
  return [
    `let ${both} = ${reduce}2(vec2<f32>(${one.share}, ${other.share}));`,
    `let ${one.name} = ${both}.x;`,
    `let ${other.name} = ${both}.y;`,
  ];
}
