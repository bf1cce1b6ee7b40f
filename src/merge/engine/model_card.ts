/**
 * README.md of a merged model: what it was made of and how, with hashes by which anyone can tell whether they have the same.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { basename } from "@std/path";
// @ts-types="../../../types/std_yaml.d.ts"
import { stringify } from "@std/yaml";
import project from "../../../deno.json" with { type: "json" };
import { mapModels } from "../recipe/recipe.ts";
import { shortNames, table, type WeightsHash } from "../written/card_text.ts";
import type { MergePlan } from "./plan.ts";

/**
 * The text of a model card.
 *
 * @param name Of the result
 * @param parents Of every model that was read
 * @param files Hashes of the weights that were written, by file
 */
export function modelCard(
  { recipe, method, dtype, tensors }: MergePlan,
  name: string,
  parents: readonly WeightsHash[],
  files: ReadonlyMap<string, string>,
): string {
  const short = shortNames(parents.map(({ model }) => model));
  const { base, slices } = mapModels(recipe, (path) => short.get(path) ?? path);
  const rows = slices.flatMap(({ sources, options }) =>
    sources.map(({ model, layers, options: own }) => [
      model + (model === base ? " (base)" : ""),
      layers ? `${layers[0]} to ${layers[1] - 1}` : "all",
      Object.entries({ ...options, ...own }).map(([key, value]) => `${key} ${JSON.stringify(value)}`).join(
        ", ",
      ),
    ])
  );
  if (base !== undefined && !slices.some(({ sources }) => sources.some(({ model }) => model === base))) {
    rows.unshift([`${base} (base)`, "all", ""]);
  }
  const values = tensors.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  const front = { base_model: [...short.values()], library_name: "transformers", tags: ["merge", "limbeck"] };
  return [
    "---",
    stringify(front).trimEnd(),
    "---",
    `# ${name}`,
    "",
    `A merge of models by ${method.id}${
      method.source ? ` (${method.source})` : ""
    }, made with Limbeck ${project.version}: ` +
    `${tensors.length} tensors, ${values} values in ${dtype}.`,
    "",
    ...table(["model", "layers", "options"], rows),
    "",
    [
      "As it was asked for",
      ...(recipe.like === undefined ? [] : [`like ${recipe.like}`]),
      `seed ${recipe.seed}:`,
    ].join(", "),
    "",
    "```yaml",
    stringify(withShortNames(recipe.written, short)).trimEnd(),
    "```",
    "",
    "SHA-256 of the weights; of a model in several files, of the lines that `sha256sum` prints for them:",
    "",
    ...table(["weights", "sha256"], [
      ...parents.map(({ model, sha256 }) => [short.get(model)!, sha256]),
      ...[...files].map(([file, sha256]) => [`this model, ${file}`, sha256]),
    ]),
    "",
  ].join("\n");
}

/** What was written, with the same names for models as in the rest of the card. */
function withShortNames(written: unknown, short: ReadonlyMap<string, string>): unknown {
  if (typeof written === "string") {
    const known = [...short.values()].find((name) => basename(written) === name && written.includes("/"));
    return known ?? written;
  }
  if (Array.isArray(written)) return written.map((entry) => withShortNames(entry, short));
  if (typeof written !== "object" || written === null) return written;
  return Object.fromEntries(
    Object.entries(written).map(([key, value]) => [key, withShortNames(value, short)]),
  );
}
