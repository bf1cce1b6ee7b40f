/**
 * Adapters: what is trained beside frozen linear layers.
 *
 * @module
 */
import type { Adapter } from "../adapter_contract.ts";
import { checkAdapter } from "../check/adapters.ts";
import type { Kind } from "../kind.ts";
import source from "./adapter.ts.txt" with { type: "text" };

/** What is trained beside frozen linear layers. */
export const adapter: Kind<Adapter, "adapter"> = {
  id: "adapter",
  role: "adapter",
  define: "defineAdapter",
  functions: ["parameters", "forward"],
  // Runs that were begun before adapters knew experts go on.
  apart: ["experts"],
  malformed: ({ suffixes }) =>
    Array.isArray(suffixes) ? undefined : {
      message: "suffixes is missing",
      hint: "List every suffix that its parameters may have in files.",
    },
  unique: { of: ({ suffixes }) => suffixes, say: (suffix) => `its tensors end in "${suffix}"` },
  check: checkAdapter,
  template: {
    name: "adapter",
    source,
  },
};
