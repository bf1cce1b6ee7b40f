/**
 * The sweeps of a row kernel after the first: statistics over the vocabulary, stage by stage, and in the last one the gradient.
 *
 * @module
 */
import { type Expression, leaves } from "../../tensor/expr/mod.ts";
import type { RowLoss } from "../contract.ts";
import { ENTRY, reachable, type Statistic } from "../row_leaves.ts";
import type { TracedObjective } from "../traced.ts";
import type { CachedTarget } from "./cached_target.ts";
import { labelStatistics } from "./label.ts";
import { type Side, SIDES, type Turn } from "./layout.ts";
import { LEAVES, type RowScope } from "./scope.ts";

/** All of them, and what is looked up at the label between them. */
export function sweeps(scope: RowScope, cached: CachedTarget | undefined): string[] {
  const lines = labelStatistics(scope, 0);
  const last = lastSweep(scope);
  for (let stage = 1; stage <= last; stage++) {
    const statistics = scope.statistics.filter((s) => s.kind !== "label" && s.stage === stage);
    const writes = scope.gradient && stage === last;
    if (statistics.length > 0 || writes) lines.push(...sweep(scope, cached, statistics, writes));
    lines.push(...labelStatistics(scope, stage));
  }
  return lines;
}

/** The sweep that writes the gradient comes when all statistics it needs are there, and no later sweep reads logits. */
function lastSweep({ gradient, statistics, traced }: RowScope): number {
  const swept = statistics.filter((s) => s.kind !== "label").map((s) => s.stage);
  if (!gradient) return Math.max(0, ...swept);
  const own = reachable([traced.gradient], traced.statistics).map((s) => s.stage);
  return Math.max(1, 1 + Math.max(0, ...own), ...swept);
}

/** One sweep over the row. */
function sweep(
  scope: RowScope,
  cached: CachedTarget | undefined,
  statistics: readonly Statistic[],
  writes: boolean,
): string[] {
  const { layout, traced } = scope;
  const bodies = [...statistics.map((s) => s.body), ...(writes ? [traced.gradient] : [])];
  const printed = scope.printed(bodies, (name) => ({ code: name, width: 4 }));
  const gathered = statistics.map((s, i) => new Gathered(s, i, printed.results[i]!.code));
  const rowLosses = writes ? traced.rowLosses.filter(({ term }) => !term.monitor) : [];
  const entries = new Entries(scope, bodies, rowLosses, writes && cached !== undefined);
  const slope = writes ? slopeOf(scope, cached, printed.results.at(-1)!.code, rowLosses) : undefined;
  const vector = (at: Turn, u: number) => [
    "{",
    ...layout.index(at, u, ""),
    ...entries.read(at),
    ...printed.lines,
    ...gathered.map((g) => g.add(at.masked ? layout.inside("") : undefined)),
    ...(slope === undefined ? [] : layout.store(at, `vec4<f32>(${slope})`)),
    "}",
  ];
  return [
    ...printed.uniform,
    // No lane may write before all lanes have looked up what they need.
    ...(writes && scope.family === "tiled" ? ["storageBarrier();"] : []),
    ...gathered.map((g) => g.begin()),
    ...layout.loop(
      gathered.map((g) => g.beginBlock()),
      (at) => Array.from({ length: at.unroll }, (_, u) => vector(at, u)).flat(),
      gathered.map((g) => g.endBlock()),
    ),
    ...gathered.map((g) => g.join()),
  ];
}

type RowLossPlace = TracedObjective["rowLosses"][number];

/** What a sweep knows of four entries: their logits, log-probabilities, and which is the label's. */
class Entries {
  readonly #scope: RowScope;
  readonly #names: ReadonlySet<string>;
  readonly #sides: readonly Side[];
  readonly #labelled: boolean;

  /** @param toBucket Whether entries outside of a cached target get their gradient, which is made from the learner's logit */
  constructor(
    scope: RowScope,
    bodies: readonly Expression[],
    rowLosses: readonly RowLossPlace[],
    toBucket: boolean,
  ) {
    this.#scope = scope;
    const names = this.#names = new Set(leaves(bodies, "variable"));
    this.#labelled = leaves(bodies, "flag").includes(ENTRY.isLabel) || rowLosses.length > 0;
    this.#sides = SIDES.filter((side) =>
      scope.reads(names, side) || (side === "q" && toBucket) ||
      rowLosses.some(({ term }) => side === "q" || (term.loss as RowLoss).needsTeacher)
    );
  }

  read(at: Turn): string[] {
    const { layout, traced } = this.#scope;
    return [
      ...(this.#labelled ? [`let entry = ${layout.entries("")};`] : []),
      ...this.#sides.flatMap((side) => {
        const { logit, logProbability } = LEAVES[side];
        const wanted = [...traced.groups.keys()].filter((g) => this.#names.has(logProbability(g)));
        return [
          layout.load(at, side, logit, "", false),
          ...wanted.map((g) =>
            `let ${logProbability(g)} = ${this.#scope.logProbability(logit, side, g, "vec4<f32>")};`
          ),
        ];
      }),
      ...(this.#labelled ? [`let ${ENTRY.isLabel} = entry == vec4<u32>(row_label);`] : []),
    ];
  }
}

/** A sum or maximum on its way: from vectors to a block of turns, from blocks to the lane, from lanes to the row. */
class Gathered {
  readonly #name: string;
  readonly #isMax: boolean;
  readonly #code: string;
  readonly #part: string;
  readonly #lane: string;

  /** @param code Its four summands */
  constructor({ name, kind }: Statistic, index: number, code: string) {
    [this.#name, this.#isMax, this.#code] = [name, kind === "max", code];
    [this.#part, this.#lane] = [`part_${name}`, `sum${index}_${name}`];
  }

  get #neutral(): string {
    return `vec4<f32>(${this.#isMax ? "-3.0e38" : "0.0"})`;
  }

  begin(): string {
    return `var ${this.#lane} = ${this.#neutral};`;
  }

  beginBlock(): string {
    return `var ${this.#part} = ${this.#neutral};`;
  }

  /** @param inside Which of the four belong to the row, where not all need to */
  add(inside: string | undefined): string {
    const none = this.#isMax ? this.#neutral : "vec4<f32>()";
    const value = inside ? `select(${none}, vec4<f32>(${this.#code}), ${inside})` : this.#code;
    if (this.#isMax) return `${this.#part} = max(${this.#part}, vec4<f32>(${value}));`;
    return `${this.#part} += ${value};`;
  }

  endBlock(): string {
    const [lane, part] = [this.#lane, this.#part];
    return this.#isMax ? `${lane} = max(${lane}, ${part});` : `${lane} += ${part};`;
  }

  join(): string {
    const [x, y, z, w] = ["x", "y", "z", "w"].map((c) => `${this.#lane}.${c}`);
    return this.#isMax
      ? `let ${this.#name} = row_max(max(max(${x}, ${y}), max(${z}, ${w})));`
      : `let ${this.#name} = row_sum((${x} + ${y}) + (${z} + ${w}));`;
  }
}

/** The gradient of four entries. @param ofDivergences What those over the whole vocabulary make of it */
function slopeOf(
  scope: RowScope,
  cached: CachedTarget | undefined,
  ofDivergences: string,
  rowLosses: readonly RowLossPlace[],
): string {
  const ofRowLosses = rowLosses.map(({ term, index }) => {
    const { needsTeacher } = term.loss as RowLoss;
    const slopes = ["x", "y", "z", "w"].map((c) =>
      `loss${index}_gradient(entry.${c}, ${ENTRY.student}.${c}, ${
        needsTeacher ? `${ENTRY.teacher}.${c}` : "0.0"
      })`
    );
    const weighted = `${scope.weight(term)} * vec4<f32>(${slopes.join(", ")})`;
    return ` + ${scope.whereCounted(term, weighted, "vec4<f32>()")}`;
  });
  return ofDivergences + ofRowLosses.join("") + (cached?.outside() ?? "");
}
