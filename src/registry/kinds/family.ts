/**
 * Families: how a config.json becomes the description of a decoder.
 *
 * @module
 */
import { builtinFamilyOf } from "../../models/families.ts";
import { checkFamily } from "../check/families.ts";
import type { Family } from "../family_contract.ts";
import type { Kind } from "../kind.ts";
import source from "./family.ts.txt" with { type: "text" };

/** Models that can be read. */
export const family: Kind<Family, "family"> = {
  id: "family",
  role: "family",
  define: "defineFamily",
  functions: ["describe"],
  malformed({ architectures, names }) {
    const classes = Object.entries(architectures ?? {});
    if (classes.length === 0 || classes.some(([, type]) => typeof type !== "string")) {
      return {
        message: `architectures is ${JSON.stringify(architectures)}`,
        hint: 'Name the classes of transformers with their model_type: { FalconForCausalLM: "falcon" }.',
      };
    }
    const missing = (["embedding", "layers", "head"] as const).find((name) =>
      typeof names?.[name] !== "string"
    );
    if (missing !== undefined) {
      return {
        message: `names.${missing} is missing`,
        hint: "Write names: decoder.USUAL_NAMES, or your own.",
      };
    }
    const taken = classes.find(([name]) => builtinFamilyOf(name) !== undefined);
    return taken && {
      message: `${taken[0]} is read by Limbeck itself`,
      hint: `See the family "${builtinFamilyOf(taken[0])}" in docs/models.md.`,
    };
  },
  unique: {
    of: ({ architectures }) => Object.keys(architectures),
    say: (name) => `it reads ${name}`,
  },
  // What neither is text nor shows its functions.
  computes: ({ narrowing, buffers }) =>
    [narrowing ? `${JSON.stringify(narrowing)} ${narrowing.config}` : "", String(buffers ?? "")].join("\n"),
  check: (plugin, _options, list, _linalg, reference) => checkFamily(plugin, reference, list),
  template: { name: "family", about: "of models", source },
};
