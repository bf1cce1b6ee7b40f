/**
 * Which layers of a model an adapter of a recipe goes to.
 *
 * @module
 */
import { didYouMean } from "../../base/did_you_mean.ts";
import { InputError } from "../../base/errors.ts";
import { patternReader } from "../../formats/peft/module_pattern.ts";
import type { LinearLayer } from "../../models/architecture.ts";
import type { AdaptedLayer, Adapter, AdapterSetting } from "../../registry/contract.ts";
import type { Model } from "../inputs/models.ts";
import type { AdapterRecipe } from "../recipe/recipe.ts";

/** No setting of a recipe is silently without effect. */
export function checkSettings(plugin: Adapter, recipe: AdapterRecipe, where: string): void {
  const given: [string, AdapterSetting, boolean][] = [
    ["alphaPattern", "alpha", Object.keys(recipe.alphaPattern).length > 0],
    ["dropout", "dropout", recipe.dropout !== 0],
    ["rslora", "rslora", recipe.rslora],
    ["loraPlusRatio", "loraPlusRatio", recipe.loraPlusRatio !== 1],
  ];
  for (const [field, setting, set] of given) {
    if (!set || plugin.settings?.includes(setting)) continue;
    throw new InputError(`the adapter "${plugin.id}" cannot be combined with ${field}`, {
      where: `recipe ${where}.${field}`,
      hint: `leave ${field} out; "${plugin.id}" knows ${
        plugin.settings?.join(", ") || "none of these settings"
      }`,
    });
  }
}

/**
 * The layers a recipe's targets mean, in the order of the forward pass, experts after linear layers.
 *
 * @throws {InputError} if a target names none, or one that this adapter cannot be on
 */
export function targetLayers(
  plugin: Adapter,
  recipe: AdapterRecipe,
  { architecture, isRowCut, shapes }: Model,
  where: string,
): AdaptedLayer[] {
  const { linearLayers: linear, expertLayers: experts, family, config } = architecture;
  const { head } = family.names;
  const all = [...linear, { name: head, out: config.vocabularySize, in: config.hiddenSize }];
  const { targets } = recipe;
  if (targets !== "all-linear") {
    for (const target of targets) {
      if (target === head) checkHead(recipe, head, config.tiedHead, where, isRowCut);
      if (all.some(({ name }) => ends(name, target))) continue;
      if (experts.some(({ name }) => meansExperts(target, name))) continue;
      const known = [...new Set(all.map(({ name }) => name.split(".").at(-1)!))];
      const ofExperts = [...new Set(experts.map(({ name }) => name.split(".").slice(-2).join(".")))];
      // Without `experts` it would mean dense layers beside them too.
      const parameter = ofExperts.find((name) => ends(name, target));
      throw new InputError(
        `"${target}" names no linear layer of the model${
          parameter ? `; did you mean "${parameter}"?` : didYouMean(target, [...known, ...ofExperts])
        }`,
        {
          where: `recipe ${where}.targets`,
          hint: `targets are all-linear (which leaves the head out), or names among ${
            [...known, ...ofExperts].join(", ")
          }, or full module paths`,
        },
      );
    }
  }
  const chosen = targets === "all-linear"
    ? linear
    : all.filter(({ name }) => targets.some((target) => ends(name, target)));
  const chosenExperts = targets === "all-linear"
    ? []
    : experts.filter(({ name }) => targets.some((target) => meansExperts(target, name)));
  if (chosenExperts.length > 0) checkExperts(plugin, recipe, where, shapes !== undefined);
  const [rankOf, alphaOf] = [patternReader(recipe.rankPattern), patternReader(recipe.alphaPattern)];
  const both: (LinearLayer & { readonly experts?: number })[] = [...chosen, ...chosenExperts];
  return both.map((layer) => ({
    path: layer.name,
    inFeatures: layer.in,
    outFeatures: layer.out,
    rank: rankOf(layer.name) ?? recipe.rank,
    alpha: alphaOf(layer.name) ?? recipe.alpha,
    ...(layer.experts === undefined ? {} : { experts: layer.experts }),
  }));
}

function ends(path: string, target: string): boolean {
  return path === target || path.endsWith(`.${target}`);
}

/**
 * Whether a target means a layer of experts: it names `experts`, or them and a parameter of theirs. Dense layers beside them have names in
 * common with these parameters, and a recipe that names those leaves experts frozen.
 */
function meansExperts(target: string, path: string): boolean {
  const named = target.split(".");
  const parts = path.split(".");
  return named.includes("experts") && (ends(path, target) || ends(parts.slice(0, -1).join("."), target));
}

/** @throws {InputError} where experts cannot have this adapter */
function checkExperts(plugin: Adapter, { dropout }: AdapterRecipe, where: string, ofShapes: boolean): void {
  if (!plugin.experts) {
    throw new InputError(`the adapter "${plugin.id}" is of linear layers, and cannot be on experts`, {
      where: `recipe ${where}.targets`,
      hint: `leave the experts out, or set ${where}.type: lora`,
    });
  }
  if (ofShapes) {
    throw new InputError("the experts of a student of several shapes can have no adapter", {
      where: `recipe ${where}.targets`,
      hint: "leave the experts out of the targets",
    });
  }
  if (dropout > 0) {
    throw new InputError("an adapter on experts cannot have dropout: PEFT has none there", {
      where: `recipe ${where}.dropout`,
      hint: "set dropout: 0, or leave the experts out of the targets",
    });
  }
}

/** @throws {InputError} where the head cannot have this adapter */
function checkHead(
  { dropout }: AdapterRecipe,
  head: string,
  tied: boolean,
  where: string,
  isRowCut: boolean,
): void {
  if (isRowCut) {
    throw new InputError(
      "the head is cut to the rows that the other model has too, so it can have no adapter",
      {
        where: `recipe ${where}.targets`,
        hint: `leave ${head} out, or give both models heads of one size`,
      },
    );
  }
  if (tied) {
    throw new InputError("the head is the embedding (tie_word_embeddings), so it can have no adapter", {
      where: `recipe ${where}.targets`,
      hint: `leave ${head} out, or train a head of its own with student.train: [head]`,
    });
  }
  if (dropout > 0) {
    throw new InputError(
      "an adapter on the head cannot have dropout: the head is computed by chunks of rows",
      {
        where: `recipe ${where}.dropout`,
        hint: `set dropout: 0, or leave ${head} out of the targets`,
      },
    );
  }
}
