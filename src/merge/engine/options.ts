/**
 * A method's options as a recipe sets them: under the names of the program it was written for, on three levels, checked for every tensor
 * by the method's own schemas.
 *
 * @module
 */
import { z } from "zod";
import { didYouMean } from "../../base/did_you_mean.ts";
import { describeIssues, type FieldSchema, type SchemaProblem } from "../../base/schema_problems.ts";
import type { Merge, OptionsSchema } from "../../registry/contract.ts";
import type { MergeRecipe, MergeSlice, MergeSource } from "../recipe/recipe.ts";
import { readOption, type Setting, type Settings, writtenValues } from "../recipe/setting.ts";

/** Options that are checked, with defaults. */
export type Options = Readonly<Record<string, unknown>>;

/** Parameters of mergekit's methods: one that this method does not have is without effect there, and no misspelling. */
const MERGEKIT_PARAMETERS = [
  "weight",
  "density",
  "gamma",
  "epsilon",
  "lambda",
  "normalize",
  "rescale",
  "t",
  "scale",
  "select_topk",
  "max_iter",
  "tol",
  "nuslerp_flatten",
  "nuslerp_row_wise",
  "filter_wise",
  "normalize_weights",
  "eps",
];

/** Settings of one level under our names, with the place in the file of each. */
interface Level {
  readonly settings: Settings;
  readonly places: ReadonlyMap<string, string>;
}

/** Of a base that the recipe names, but not among the models. */
const NOTHING: Level = { settings: {}, places: new Map() };

/** Reads a method's options for one tensor after another. */
export class MergeOptions {
  readonly problems: SchemaProblem[] = [];
  readonly notes = new Set<string>();
  readonly #method: Merge;
  readonly #recipe: MergeRecipe;
  readonly #levels = new Map<object, Level>();
  readonly #read = new Map<string, Options | undefined>();

  constructor(method: Merge, recipe: MergeRecipe) {
    this.#method = method;
    this.#recipe = recipe;
    const written = recipe.writtenFor === "mergekit" ? ".parameters" : "";
    this.#addLevel(recipe, recipe.optionsAt, true);
    for (const slice of recipe.slices) {
      this.#addLevel(slice, slice.where + (written || ".options"), true);
      for (const source of slice.sources) {
        if (this.#isBase(source)) this.#addBase(source, source.where + written);
        else this.#addLevel(source, source.where + written, false);
      }
    }
    this.#noteLikeness();
  }

  /**
   * Options of the method for one tensor; undefined where there is a problem, which is kept.
   *
   * @param name Of the tensor in the result
   * @param t Where its layer lies in its slice
   */
  ofMethod(slice: MergeSlice, name: string, t: number): Options | undefined {
    return this.#options(this.#method.options, [slice, this.#recipe], name, t, this.#likeness?.options);
  }

  /** Options of a parent for one tensor. @param name Of the tensor in the parent */
  ofParent(source: MergeSource, slice: MergeSlice, name: string, t: number): Options | undefined {
    const levels = [source, slice, this.#recipe];
    return this.#options(this.#method.parentOptions, levels, name, t, this.#likeness?.parent);
  }

  /** Looks at each value that is written by itself, for when there are no tensors to read options for. */
  checkValues(): void {
    const schemas = [this.#method.options, this.#method.parentOptions];
    for (const { settings, places } of this.#levels.values()) {
      for (const [option, setting] of Object.entries(settings)) {
        const schema = schemas.find(({ shape }) => Object.hasOwn(shape, option))!;
        for (const value of writtenValues(setting)) {
          const issues = schema.safeParse({ [option]: value }).error?.issues ?? [];
          const own = issues.filter(({ path }) => path[0] === option);
          const fields = z.toJSONSchema(schema, { io: "input" }) as FieldSchema;
          for (const { message } of describeIssues(own, { [option]: value }, fields)) {
            this.problems.push({ path: places.get(option)!, message });
          }
        }
      }
    }
  }

  get #likeness() {
    const { like } = this.#recipe;
    return like === undefined ? undefined : this.#method.like?.[like];
  }

  #options(
    schema: OptionsSchema,
    owners: readonly object[],
    name: string,
    t: number,
    preset: object | undefined,
  ): Options | undefined {
    const levels = owners.map((owner) => this.#levels.get(owner) ?? NOTHING);
    const given: Record<string, unknown> = { ...preset };
    for (const option of Object.keys(schema.shape)) {
      const value = readOption(option, levels.map(({ settings }) => settings), name, t);
      if (value !== undefined) given[option] = value;
    }
    const placeOf = (option: string) =>
      levels.find(({ places }) => places.has(option))?.places.get(option) ??
        `${this.#recipe.optionsAt}.${option}`;
    const key = JSON.stringify([schema === this.#method.options, given]);
    if (this.#read.has(key)) return this.#read.get(key);
    const result = schema.safeParse(given);
    if (!result.success) {
      const fields = z.toJSONSchema(schema, { io: "input" }) as FieldSchema;
      for (const { path, message } of describeIssues(result.error.issues, given, fields)) {
        const [option, ...rest] = path.split(".");
        this.problems.push({ path: [placeOf(option!), ...rest].join("."), message });
      }
    }
    this.#read.set(key, result.data);
    return result.data;
  }

  /** Whether a source is what changes are measured from, and so no parent. */
  #isBase({ model }: MergeSource): boolean {
    return model === this.#recipe.base && ["required", "optional"].includes(this.#method.base);
  }

  /** A base has no options: what is set for it would be without effect. */
  #addBase({ options }: MergeSource, at: string): void {
    for (const written of Object.keys(options)) {
      const place = `${at}.${written}`;
      if (this.#recipe.writtenFor) this.notes.add(`${place} has no effect: it is set for the base`);
      else {this.problems.push({
          path: place,
          message: "is set for the base, which has no options; leave it out",
        });}
    }
  }

  #addLevel(owner: { readonly options: Settings }, at: string, shared: boolean): void {
    const { options, parentOptions, like } = this.#method;
    const names = this.#recipe.writtenFor ? like?.[this.#recipe.writtenFor]?.names ?? {} : undefined;
    const [own, parents] = [options, parentOptions].map((schema) => Object.keys(schema.shape));
    const settings: Record<string, Setting> = {};
    const places = new Map<string, string>();
    for (const [written, setting] of Object.entries(owner.options)) {
      const name = names ? names[written] ?? camelCase(written) : written;
      const place = `${at}.${written}`;
      if (parents!.includes(name) || (shared && own!.includes(name))) {
        settings[name] = setting;
        places.set(name, place);
      } else if (names && MERGEKIT_PARAMETERS.includes(written)) {
        this.notes.add(
          own!.includes(name)
            ? `${place} has no effect: it counts for the whole merge, under ${this.#recipe.optionsAt}`
            : `${written} has no effect: ${this.#method.id} has no such option`,
        );
      } else if (own!.includes(name)) {
        this.problems.push({
          path: place,
          message: `is an option of the merge as a whole; write it under ${this.#recipe.optionsAt}`,
        });
      } else {
        const known = shared ? [...own!, ...parents!] : parents!;
        this.problems.push({
          path: place,
          message: `${this.#method.id} has no such option${didYouMean(name, known)} ${
            known.length === 0 ? "It has none here" : `Options here: ${known.join(", ")}`
          }`.replace(/option (?=It|Options)/, "option. "),
        });
      }
    }
    this.#levels.set(owner, { settings, places });
  }

  /** Says which choices of the program a recipe was written for are not followed, as nobody asked for them. */
  #noteLikeness(): void {
    const { writtenFor, like, slices } = this.#recipe;
    const likeness = writtenFor && like === undefined ? this.#method.like?.[writtenFor] : undefined;
    const sets = (owner: object, name: string) => this.#levels.get(owner)?.places.has(name) ?? false;
    const parents = slices.flatMap(({ sources }) => sources).filter((source) => !this.#isBase(source));
    const isGiven = (name: string) =>
      sets(this.#recipe, name) || slices.every((slice) => sets(slice, name)) ||
      parents.every((source) => sets(source, name));
    const { options, parentOptions } = this.#method;
    for (
      const [schema, preset] of [[options, likeness?.options], [parentOptions, likeness?.parent]] as const
    ) {
      const defaults = schema.safeParse({}).data ?? {};
      for (const [name, theirs] of Object.entries(preset ?? {})) {
        const ours = defaults[name];
        if (isGiven(name) || ours === theirs) continue;
        this.notes.add(
          `${name} is ${ours}, as the paper has it; ${writtenFor} has ${theirs}: --like ${writtenFor} follows it`,
        );
      }
    }
  }
}

function camelCase(name: string): string {
  return name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}
