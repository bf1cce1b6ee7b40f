/**
 * What merges must do: take the numbers of parents they name, give finite numbers for finite ones, the same each time, in pieces what
 * they give whole, and keep the identities that hold of them.
 *
 * @module
 */
import { z } from "zod";
import type { LinearAlgebra } from "../adapter_contract.ts";
import type { Merge } from "../merge_contract.ts";
import { CheckFailure, type Checklist, CheckSkipped } from "./checklist.ts";
import { mergeAll, type MergeSubject, type OptionedMerge, SHAPES, subject, unitOf } from "./merge_subject.ts";

/** f32 work on sums of a few parents, and what singular values of small matrices come to. */
const TOLERANCE = 2e-5;
const UNKNOWN = "no such option of any plugin";

/** Checks a merge on tensors of several shapes, with and without a base where it takes both. */
export async function checkMerge(
  merge: Merge,
  options: Record<string, unknown>,
  list: Checklist,
  linalg: LinearAlgebra,
): Promise<void> {
  let parent: Record<string, unknown> | undefined;
  await list.step("options of parents", () => {
    parent = readParent(merge);
    const names = Object.entries(parent).map(([name, value]) => `${name}=${JSON.stringify(value)}`);
    return names.join(", ") || "none";
  }, "Every one needs a default, a JSON form and a strict schema.");
  if (!parent) return;
  // A merge that changes its options would change the next tensor's.
  const optioned = deepFreeze({ merge: { ...merge }, options, parents: [parent] });
  const given: OptionedMerge = { ...optioned, linalg };
  const bases = merge.base === "optional" ? [false, true] : [merge.base === "required"];
  for (const base of bases) {
    const on = merge.base === "optional" ? (base ? " with a base" : " without a base") : "";
    const passed = await list.step(`result${on}`, () => checkResult(given, base));
    if (!passed) continue;
    await list.step(`finite on finite${on}`, () => checkExtremes(given, base));
    await list.step(`the same each time${on}`, () => checkDeterminism(given, base));
    await list.step(`pieces equal the whole${on}`, () => checkPieces(given, base));
    await checkIdentities(given, base, on, list);
  }
  for (const [name, likeness] of Object.entries(merge.like ?? {})) {
    await list.step(`like ${name}`, async () => {
      const like = optionedWith(given, likeness.options, [likeness.parent]);
      await checkResult(like, bases[0]!);
      return JSON.stringify({ ...likeness.options, ...likeness.parent });
    }, "`like` holds options of its own schemas.");
  }
}

/** Options of a parent with their defaults. */
function readParent({ parentOptions }: Merge): Record<string, unknown> {
  z.toJSONSchema(parentOptions, { io: "input" });
  const result = parentOptions.safeParse({});
  if (!result.success) {
    const [issue] = result.error.issues;
    throw new CheckFailure(`${issue!.path.join(".") || "parentOptions"}: ${issue!.message}`, {
      hint: "Give each a default in the schema with .default(...).",
    });
  }
  if (parentOptions.safeParse({ [UNKNOWN]: 1 }).success) {
    throw new CheckFailure(
      "parents take options that it does not know, so a misspelt one would go unnoticed",
      {
        hint: "Use z.strictObject instead of z.object.",
      },
    );
  }
  return result.data;
}

/** The merge with other options. @throws {CheckFailure} where its schemas refuse them */
function optionedWith(
  given: OptionedMerge,
  options: object = {},
  parents: readonly (object | undefined)[] = [{}],
): OptionedMerge {
  const read = (schema: z.ZodObject, more: object, before: object) => {
    const result = schema.safeParse({ ...before, ...more });
    if (result.success) return result.data;
    throw new CheckFailure(`its schema refuses ${JSON.stringify(more)}: ${result.error.issues[0]!.message}`);
  };
  return {
    ...given,
    options: read(given.merge.options, options, given.options),
    parents: parents.map((more = {}) => read(given.merge.parentOptions, more, given.parents[0]!)),
  };
}

/** Numbers of parents to try: the least, and the most or two more than that. */
function counts({ least, most = least + 2 }: Merge["parents"]): number[] {
  return [...new Set([least, Math.min(most, least + 2)])];
}

async function checkResult(given: OptionedMerge, base: boolean): Promise<string> {
  const numbers = counts(given.merge.parents);
  for (const parents of numbers) {
    await mergeAll(given, SHAPES.map((shape, i) => subject(shape, { parents, base }, i + 1)));
  }
  return `${numbers.join(" and ")} parents, ${SHAPES.map((s) => `[${s.join(", ")}]`).join(" ")}`;
}

/** Tensors on which norms, sums of weights and variances vanish, or nearly. */
async function checkExtremes(given: OptionedMerge, base: boolean): Promise<string> {
  const parents = counts(given.merge.parents).at(-1)!;
  const changed = (shape: readonly number[], f: (x: number, model: number, i: number) => number) => {
    const { base: zero, parents: models, ...rest } = subject(shape, { parents, base });
    return {
      ...rest,
      ...(zero ? { base: zero.map((x, i) => f(x, -1, i)) } : {}),
      parents: models.map((values, m) => values.map((x, i) => f(x, m, i))),
    };
  };
  const kinds: Readonly<Record<string, (x: number, model: number, i: number) => number>> = {
    "all zero": () => 0,
    "all alike": () => 0.5,
    "one parent zero": (x, m) => (m === 0 ? 0 : x),
    "parents that cancel": (_, m, i) => (m < 0 ? 0 : (m % 2 ? -1 : 1) * (i % 5 - 2)),
    "tied": (x) => Math.round(4 * x) / 4,
    "large": (x) => 1e6 * x,
    "small": (x) => 1e-12 * x,
  };
  for (const [name, f] of Object.entries(kinds)) {
    try {
      for (const shape of SHAPES) await mergeAll(given, [changed(shape, f)]);
    } catch (error) {
      if (!(error instanceof CheckFailure)) throw error;
      throw new CheckFailure(
        `${name}: ${error.message}`,
        error.hint === undefined ? {} : { hint: error.hint },
      );
    }
  }
  return Object.keys(kinds).join(", ");
}

/** Two runs on the same tensors, and a tensor merged among others and alone. */
async function checkDeterminism(given: OptionedMerge, base: boolean): Promise<string> {
  const parents = counts(given.merge.parents).at(-1)!;
  const all = SHAPES.map((shape, i) => subject(shape, { parents, base }, i + 1));
  const first = await mergeAll(given, all);
  const again = await mergeAll(given, all);
  const backwards = (await mergeAll(given, all.toReversed())).reverse();
  for (const [i, result] of first.entries()) {
    if (!sameBytes(result, again[i]!)) {
      throw new CheckFailure("two runs on the same values gave different bytes");
    }
    if (!sameBytes(result, backwards[i]!)) {
      throw new CheckFailure(`${all[i]!.name} becomes something else when other tensors come before it`, {
        hint: "Keep nothing from one tensor to the next; what whole models decide belongs into `survey`.",
      });
    }
  }
  return "yes, in any order of tensors";
}

async function checkPieces(given: OptionedMerge, base: boolean): Promise<string> {
  if (unitOf(given) !== "entries") throw new CheckSkipped("with these options it sees whole tensors");
  const parents = counts(given.merge.parents).at(-1)!;
  const all = SHAPES.map((shape, i) => subject(shape, { parents, base }, i + 1));
  const whole = await mergeAll(given, all);
  for (const piece of [1, 4, 7]) {
    const parts = await mergeAll(given, all, piece);
    const odd = whole.findIndex((result, i) => !sameBytes(result, parts[i]!));
    if (odd < 0) continue;
    throw new CheckFailure(`in pieces of ${piece} entries ${all[odd]!.name} becomes something else`, {
      hint: 'Where an entry depends on others of its tensor, write unit: "tensor".',
    });
  }
  return "of 1, 4 and 7 entries";
}

async function checkIdentities(
  given: OptionedMerge,
  base: boolean,
  on: string,
  list: Checklist,
): Promise<void> {
  const { merge } = given;
  const { equalParents = true, base: toBase, first, symmetric } = merge.identities ?? {};
  const numbers = counts(merge.parents);
  const tensors = (parents: number) => SHAPES.map((shape, i) => subject(shape, { parents, base }, i + 1));
  if (equalParents) {
    await list.step(`equal models${on}`, async () => {
      for (const count of numbers) {
        const all = tensors(count).map((s) => ({
          ...s,
          parents: s.parents.map(() => s.base ?? s.parents[0]!),
        }));
        close(
          await mergeAll(given, all),
          all.map((s) => s.parents[0]!),
          "equal models do not give that model",
        );
      }
      return "give that model";
    }, "Where they should not, write identities: { equalParents: false }.");
  }
  if (toBase && base) {
    await list.step(`options that leave the base${on}`, async () => {
      const changed = optionedWith(given, toBase.options, [toBase.parent]);
      for (const count of numbers) {
        const all = tensors(count);
        close(await mergeAll(changed, all), all.map((s) => s.base!), "they do not give the base");
      }
      return JSON.stringify({ ...toBase.options, ...toBase.parent });
    });
  }
  if (first) {
    await list.step(`options that leave the first parent${on}`, async () => {
      const changed = optionedWith(given, first.options, first.parents);
      const all = tensors(first.parents.length);
      close(await mergeAll(changed, all), all.map((s) => s.parents[0]!), "they do not give the first parent");
      return JSON.stringify({ ...first.options, parents: first.parents });
    });
  }
  if (symmetric) {
    await list.step(`order of the parents${on}`, async () => {
      const all = tensors(numbers.at(-1)!);
      const turned: MergeSubject[] = all.map((s) => ({ ...s, parents: s.parents.toReversed() }));
      close(await mergeAll(given, turned), await mergeAll(given, all), "the order of the parents matters");
      return "does not matter";
    }, "Where it should matter, leave `symmetric` out.");
  }
}

function close(got: readonly Float32Array[], want: readonly Float32Array[], what: string): void {
  for (const [k, wanted] of want.entries()) {
    for (const [i, x] of wanted.entries()) {
      const value = got[k]![i]!;
      if (Math.abs(value - x) <= TOLERANCE * Math.max(1, Math.abs(x))) continue;
      throw new CheckFailure(
        `${what}: entry ${i} of [${SHAPES[k]!.join(", ")}] is ${value} where ${x} is expected`,
      );
    }
  }
}

function sameBytes(a: Float32Array, b: Float32Array): boolean {
  return a.length === b.length && a.every((x, i) => Object.is(x, b[i]));
}

/** Plain objects and lists all the way down; schemas and functions stay as they are. */
function deepFreeze<T>(value: T): T {
  const isPlain = Array.isArray(value) ||
    (typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype);
  if (!isPlain) return value;
  for (const part of Object.values(value as object)) deepFreeze(part);
  return Object.freeze(value);
}
