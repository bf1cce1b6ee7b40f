/**
 * README.md of what was made of several models by one equation: a residual, an extracted adapter, a sum of adapters.
 *
 * @module
 */
// @ts-types="../../../types/std_yaml.d.ts"
import { stringify } from "@std/yaml";
import project from "../../../deno.json" with { type: "json" };
import { shortNames, table, type WeightsHash } from "./card_text.ts";

/** What a card says. */
export interface DerivedCard {
  readonly title: string;
  /** One sentence: how the parents became this. */
  readonly method: string;
  readonly library: "transformers" | "peft";
  /** What each was made of, in the method's words, such as `base`. */
  readonly parents: readonly (WeightsHash & { readonly role: string; readonly weight?: number })[];
  /** Further lines, such as errors of an approximation. */
  readonly notes?: readonly string[];
}

/** The text of a card. */
export function derivedCard({ title, method, library, parents, notes = [] }: DerivedCard): string {
  const short = shortNames(parents.map(({ model }) => model));
  const weighted = parents.some(({ weight }) => weight !== undefined);
  const front = {
    base_model: [...new Set(short.values())],
    library_name: library,
    tags: ["merge", "limbeck"],
  };
  const head = ["parent", "model", ...(weighted ? ["weight"] : []), "sha256 of its weights"];
  return [
    "---",
    stringify(front).trimEnd(),
    "---",
    `# ${title}`,
    "",
    `${method} Made with Limbeck ${project.version}.`,
    "",
    ...table(
      head,
      parents.map(({ role, model, weight, sha256 }) => [
        role,
        short.get(model)!,
        ...(weighted ? [String(weight ?? 1)] : []),
        sha256,
      ]),
    ),
    ...(notes.length > 0 ? ["", ...notes.map((note) => `- ${note}`)] : []),
    "",
  ].join("\n");
}
