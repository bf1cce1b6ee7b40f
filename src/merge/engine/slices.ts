/**
 * Slices of a merge: which layers of which models make layers of the result, and which model is the base.
 *
 * @module
 */
import type { SchemaProblem } from "../../base/schema_problems.ts";
import type { Merge } from "../../registry/contract.ts";
import type { Parents } from "../parents/parents.ts";
import type { MergeRecipe, MergeSlice, MergeSource } from "../recipe/recipe.ts";

/** A slice with what is found of its sources. */
export interface ResolvedSlice {
  readonly slice: MergeSlice;
  /** Layers it has. */
  readonly layers: number;
  /** The first layer of each source. */
  readonly base?: Placed;
  readonly parents: readonly Placed[];
}

/** A source, and the first layer of it that is taken. */
export interface Placed {
  readonly source: MergeSource;
  readonly first: number;
}

/**
 * The base and the parents of a slice, and which of their layers it takes.
 *
 * @param problems Gets what is wrong
 */
export function resolveSlice(
  slice: MergeSlice,
  recipe: MergeRecipe,
  method: Merge,
  parents: Parents,
  problems: SchemaProblem[],
): ResolvedSlice {
  const ranges = slice.sources.map((source) => {
    const { layers } = parents.get(source.model).architecture.config;
    const [first, end] = source.layers ?? [0, layers];
    if (end > layers || first >= end) {
      problems.push({
        path: source.where,
        message:
          `layers ${first} to ${end} are asked for; ${source.model} has ${layers}, counted from 0, the end not included`,
      });
    }
    return { source, first, count: end - first };
  });
  const layers = ranges[0]!.count;
  const odd = ranges.find(({ count }) => count !== layers);
  if (odd) {
    const hint = odd.source.layers ? "" : "; choose layers with slices";
    problems.push({
      path: odd.source.where,
      message: `${odd.count} layers, where ${ranges[0]!.source.where} has ${layers}${hint}`,
    });
  }
  const { base, ...placed } = withBase(slice, ranges, recipe, method, problems);
  const { least, most = Infinity } = method.parents;
  const count = placed.parents.length;
  if (count < least || count > most) {
    const wanted = most === least
      ? `${least}`
      : most === Infinity
      ? `at least ${least}`
      : `${least} to ${most}`;
    problems.push({
      path: slice.where,
      message: `${method.id} merges ${wanted} ${
        wanted === "1" || wanted === "at least 1" ? "model" : "models"
      }${base ? " beside the base" : ""}; there ${count === 1 ? "is" : "are"} ${count}`,
    });
  }
  return { slice, layers, ...(base ? { base } : {}), parents: placed.parents };
}

/** Tells the base from the parents, as the method has it. */
function withBase(
  slice: MergeSlice,
  ranges: readonly (Placed & { readonly count: number })[],
  recipe: MergeRecipe,
  method: Merge,
  problems: SchemaProblem[],
): Pick<ResolvedSlice, "base" | "parents"> {
  if (method.base === "none") return { parents: ranges };
  if (recipe.base === undefined) {
    if (method.base === "required") {
      problems.push({
        path: recipe.writtenFor === "mergekit" ? "base_model" : "base",
        message:
          `${method.id} needs the model that the others were trained from; beside --method it is --base`,
      });
    }
    return { parents: ranges };
  }
  const named = ranges.filter(({ source }) => source.model === recipe.base);
  const others = ranges.filter(({ source }) => source.model !== recipe.base);
  const [first, ...more] = new Set(others.map((range) => range.first));
  if (named.length === 0 && more.length > 0) {
    problems.push({
      path: slice.where,
      message: `its sources take different layers, so it must name the base among them: ${recipe.base}`,
    });
  }
  if (named.length > 1) {
    problems.push({ path: slice.where, message: `names the base ${named.length} times: ${recipe.base}` });
  }
  const base = named[0] ?? {
    source: { model: recipe.base, options: {}, where: "base", layers: others[0]?.source.layers },
    first: first ?? 0,
  };
  return method.base === "first" ? { parents: [base, ...others] } : { base, parents: others };
}
