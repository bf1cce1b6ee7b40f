/**
 * From the expressions of divergences to what has to be computed for a row: statistics (sums, maxima, look-ups at the label) in
 * stages, values, and the gradient of each entry.
 *
 * With l_v = log q_v, u_v = dD/d l_v and temperature tau, dD/dz_v = (u_v - q_v sum_w u_w) / tau. Statistics are differentiated
 * through in reverse order of their making.
 *
 * @module
 */
import {
  addends,
  Condition,
  constant,
  derivative,
  type Expression,
  flag,
  leaves,
  log,
  mul,
  select,
  stepScalar,
  sumOf,
  variable,
} from "../tensor/expr/mod.ts";
import type { Divergence, DivergenceSymbols } from "./contract.ts";
import { PluginError } from "../base/plugin.ts";
import { collect, generatorOf, isAtLabel, isZero, knownSum } from "./known_sums.ts";
import { ENTRY, isRowLevel, ROW, type Statistic } from "./row_leaves.ts";

/** A traced divergence. */
export interface TracedDivergence {
  /** D, from statistics and step scalars. */
  readonly value: Expression;
  /** dD/dz of an entry, temperature included, weight not. */
  readonly gradient: Expression;
}

/** Collects the statistics of several divergences, each once. */
export class RowProgram {
  readonly statistics: Statistic[] = [];
  readonly #prefix: string;
  readonly #entryCount: Expression;

  /**
   * @param prefix Begins the statistics' names
   * @param entryCount Entries that statistics range over
   */
  constructor(prefix = "stat", entryCount: Expression = variable(ROW.vocabulary)) {
    this.#prefix = prefix;
    this.#entryCount = entryCount;
  }

  /** Traces a divergence at the temperature numbered `group`. */
  trace(
    plugin: Divergence,
    symbolOptions: Record<string, unknown>,
    group: number,
    tempered: boolean,
  ): TracedDivergence {
    const { q, p, isLabel } = entrySymbols(group, symbolOptions);
    const looksAtTarget = leavesOf(plugin, symbolOptions).has(ENTRY.logP(0));
    const sum = (body: Expression) => {
      if (!looksAtTarget) return this.#sum(collect(body));
      const generator = generatorOf(derivative(body, ENTRY.logQ(group)), group);
      return this.#sum(collect(body.add(mul(generator, q.sub(p)))));
    };
    const max = (body: Expression) => this.#statistic("max", body);
    const symbols: DivergenceSymbols = {
      ...entrySymbols(group, symbolOptions),
      sum,
      max,
      logSumExp: (body) => {
        const highest = max(body).detach();
        return highest.add(log(sum(body.sub(highest).exp())));
      },
      atLabel: (body) => this.#statistic("label", body),
    };
    if (!plugin.term && !plugin.value) {
      throw new PluginError(plugin.id, "a divergence needs term() or value()");
    }
    const value = plugin.term ? sum(plugin.term(symbols)) : plugin.value!(symbols);
    if (!isRowLevel(value)) {
      throw new PluginError(
        plugin.id,
        "value() must be made from sums over the row, not from single entries",
        {
          hint: "wrap the expression in sum(), max(), logSumExp() or atLabel()",
        },
      );
    }
    const adjoints = this.#adjoints(value);
    const along = (name: string) => collect(this.#pull(adjoints, name, isLabel));
    const u = along(ENTRY.logQ(group));
    const direct = along(ENTRY.student);
    let gradient = this.#centred(u, group);
    if (tempered) gradient = gradient.mul(variable(ROW.inverseTemperature(group)));
    return { value, gradient: gradient.add(direct) };
  }

  /**
   * u - q sum u. A multiple of q in u changes nothing in exact arithmetic: with it u is small where p is near q, without it where
   * p is far from q. The row's smaller sum decides.
   */
  #centred(u: Expression, group: number): Expression {
    const q = variable(ENTRY.logQ(group)).exp();
    const known = knownSum(u, group, this.#entryCount);
    if (known) return collect(u.sub(mul(q, known)));
    const parts = addends(u, isRowLevel);
    const [multiple, rest] = [parts.filter((a) => a.term.equals(q)), parts.filter((a) => !a.term.equals(q))];
    if (multiple.length === 0) return u.sub(mul(q, this.#sum(u)));
    const [near, far] = [this.#sum(u), this.#sum(sumOf(rest))];
    const isNear = near.abs().lessThan(far.abs());
    const factor = multiple.reduce(
      (sum: Expression, a) => sum.add(mul(a.coefficient, a.factor)),
      constant(0),
    );
    return sumOf(rest).add(mul(select(isNear, factor, 0), q)).sub(mul(q, select(isNear, near, far)));
  }

  /** A statistic, or the same one made before. */
  #statistic(kind: Statistic["kind"], body: Expression): Expression {
    if (body.kind === "constant" && kind !== "sum") return body;
    const known = this.statistics.find((s) => s.kind === kind && s.body.equals(body));
    if (known) return variable(known.name);
    const needed = leaves([body], "variable");
    const before = Math.max(0, ...this.statistics.filter((s) => needed.includes(s.name)).map((s) => s.stage));
    const name = `${this.#prefix}${this.statistics.length}`;
    this.statistics.push({ name, kind, body, stage: kind === "label" ? before : before + 1 });
    return variable(name);
  }

  /** Sum of an expression over the row. Parts that live at the label alone become look-ups, constant ones need no sum. */
  #sum(body: Expression): Expression {
    let total: Expression = constant(0);
    const swept = [];
    for (const addend of addends(body, isRowLevel)) {
      const { coefficient, factor, term } = addend;
      const times = (x: Expression) => total = total.add(mul(mul(coefficient, factor), x));
      if (isRowLevel(term)) times(mul(term, this.#entryCount));
      else if (isAtLabel(term)) times(this.#statistic("label", term.operands[1] as Expression));
      else swept.push(addend);
    }
    return collect(swept.length === 0 ? total : total.add(this.#statistic("sum", sumOf(swept))));
  }

  /** dD/d statistic for each statistic that D depends on, through later statistics too. */
  #adjoints(value: Expression): Map<Statistic, Expression> {
    const adjoints = new Map<Statistic, Expression>();
    for (const target of [...this.statistics].reverse()) {
      let adjoint = derivative(value, target.name);
      for (const [later, outer] of adjoints) {
        const inner = derivative(later.body, target.name);
        if (isZero(inner)) continue;
        adjoint = adjoint.add(mul(outer, this.#through(later, inner)));
      }
      if (!isZero(adjoint)) adjoints.set(target, adjoint);
    }
    return adjoints;
  }

  /** Change of a statistic when its body changes by `inner` in every entry. */
  #through(statistic: Statistic, inner: Expression): Expression {
    if (statistic.kind === "label") return this.#statistic("label", inner);
    if (statistic.kind === "sum") return this.#sum(inner);
    const attained = statistic.body.equalTo(variable(statistic.name));
    return this.#sum(select(attained, inner, 0));
  }

  /** dD/d leaf of one entry. */
  #pull(adjoints: ReadonlyMap<Statistic, Expression>, leaf: string, isLabel: Condition): Expression {
    let total: Expression = constant(0);
    for (const [statistic, adjoint] of adjoints) {
      const inner = derivative(statistic.body, leaf);
      if (isZero(inner)) continue;
      const entry = statistic.kind === "sum" ? inner : select(
        statistic.kind === "label" ? isLabel : statistic.body.equalTo(variable(statistic.name)),
        inner,
        0,
      );
      total = total.add(mul(adjoint, entry));
    }
    return total;
  }
}

/** What a divergence's expressions are made of, but for the statistics, at the temperature numbered `group`. */
function entrySymbols(
  group: number,
  options: Record<string, unknown>,
): Omit<DivergenceSymbols, "sum" | "max" | "logSumExp" | "atLabel"> {
  const [logQ, logP] = [variable(ENTRY.logQ(group)), variable(ENTRY.logP(group))];
  return {
    ...{ logQ, logP, q: logQ.exp(), p: logP.exp(), isLabel: flag(ENTRY.isLabel), options },
    studentLogit: variable(ENTRY.student),
    teacherLogit: variable(ENTRY.teacher),
    vocabulary: variable(ROW.vocabulary),
  };
}

/** Names of all leaves in what a divergence says, at temperature number 0, before anything is derived from it. */
export function leavesOf(plugin: Divergence, symbolOptions: Record<string, unknown>): Set<string> {
  const bodies: Expression[] = [];
  const note = (body: Expression) => variable(`noted${bodies.push(body)}`);
  const symbols = {
    ...entrySymbols(0, symbolOptions),
    ...{ sum: note, max: note, logSumExp: note, atLabel: note },
  };
  const made = plugin.term ? plugin.term(symbols) : plugin.value?.(symbols);
  if (made) bodies.push(made);
  return new Set([...leaves(bodies, "variable"), ...leaves(bodies, "flag")]);
}

/** Step scalars in the place of options that may change at every step. */
export function symbolicOptions(
  scheduled: readonly string[],
  options: Readonly<Record<string, unknown>>,
  scalarName: (option: string) => string,
): Record<string, unknown> {
  const symbols: Record<string, unknown> = { ...options };
  for (const name of scheduled) symbols[name] = stepScalar(scalarName(name));
  return symbols;
}
