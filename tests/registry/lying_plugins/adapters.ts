/** Adapters that do what they must not. */
import { type Adapter, CONTRACT_VERSION, defineAdapter, tensor } from "@limbeck/limbeck/plugin";
import { z } from "zod";

const honest = (id: string): Adapter =>
  defineAdapter({
    id: `liar/${id}`,
    version: "1.0.0",
    contract: CONTRACT_VERSION,
    options: z.strictObject({}),
    suffixes: ["liar_shift"],
    parameters: ({ inFeatures, outFeatures }) => [
      {
        name: "D",
        suffix: "liar_shift",
        shape: [outFeatures, inFeatures],
        initialisation: { kind: "constant", value: 0 },
      },
    ],
    forward: ({ x, base, parameter }) => tensor.add(base(), tensor.linear(x, parameter("D"))),
    merge: (weight, { parameter }) => weight.map((w, i) => w + parameter("D")[i]!),
  });

const LIES: Readonly<Record<string, () => unknown>> = {
  "honest-adapter": () => honest("honest-adapter"),
  "wrong-merge": (): Adapter => ({
    ...honest("wrong-merge"),
    merge: (weight, { parameter }) => weight.map((w, i) => w + 2 * parameter("D")[i]!),
  }),
  "wrong-shape": (): Adapter => ({ ...honest("wrong-shape"), forward: ({ x }) => x }),
  "not-the-base": (): Adapter => ({
    ...honest("not-the-base"),
    parameters: (layer, settings, options) =>
      honest("x").parameters(layer, settings, options).map((p) => ({
        ...p,
        initialisation: { kind: "constant", value: 1 },
      })),
  }),
  "unused": (): Adapter => ({
    ...honest("unused"),
    forward: ({ base }) => base(),
    merge: (weight) => weight,
  }),
  "unsaid-prompt": (): Adapter => ({
    ...honest("unsaid-prompt"),
    forward: ({ base, prompt }) => tensor.linear(prompt(), base()),
  }),
  "unmergeable": () => {
    const { merge: _, ...rest } = honest("unmergeable");
    return rest;
  },
  "taken-suffix": (): Adapter => ({ ...honest("taken-suffix"), suffixes: ["lora_A.weight"] }),
};

/** The lie of that name. */
export function lie(name: string): unknown {
  return LIES[name]!();
}
