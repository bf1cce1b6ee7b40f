/** Adapters that do what they must not. */
import { type Adapter, CONTRACT_VERSION, defineAdapter, sqrt, tensor } from "@limbeck/limbeck/plugin";
import { z } from "zod";

const honest = (id: string): Adapter =>
  defineAdapter({
    id: `liar/${id}`,
    version: "1.0.0",
    contract: CONTRACT_VERSION,
    options: z.strictObject({}),
    suffixes: [`liar_${id}`],
    parameters: ({ inFeatures, outFeatures }) => [
      {
        name: "D",
        suffix: `liar_${id}`,
        shape: [outFeatures, inFeatures],
        initialisation: { kind: "constant", value: 0 },
      },
    ],
    forward: ({ x, base, parameter }) => tensor.add(base(), tensor.linear(x, parameter("D"))),
    merge: (weight, { parameter }) => weight.map((w, i) => w + parameter("D")[i]!),
  });

const LIES: Readonly<Record<string, () => unknown>> = {
  "honest-adapter": (): Adapter => ({
    ...honest("honest-adapter"),
    experts: ({ x, base, parameter, linear }) => tensor.add(base(), linear(x, parameter("D"))),
  }),
  "other-experts": (): Adapter => ({
    ...honest("other-experts"),
    experts: ({ x, base, parameter, linear }) =>
      tensor.add(base(), tensor.scale(linear(x, parameter("D")), 0.5)),
  }),
  "wrong-merge": (): Adapter => ({
    ...honest("wrong-merge"),
    merge: (weight, { parameter }) => weight.map((w, i) => w + 2 * parameter("D")[i]!),
  }),
  "wrong-shape": (): Adapter => ({ ...honest("wrong-shape"), forward: ({ x }) => x }),
  "not-the-base": (): Adapter => ({
    ...honest("not-the-base"),
    parameters: (layer, settings, options, model) =>
      honest("not-the-base").parameters(layer, settings, options, model).map((p) => ({
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
  "steep-penalty": (): Adapter => ({
    ...honest("steep-penalty"),
    // The root of D^2 summed up has no slope where D is 0.
    penalty: ({ layers }) =>
      layers.map(({ parameter }) => tensor.pointwise([parameter("D")], (d) => d!.mul(d!)))
        .map((squares) => tensor.sumRows(tensor.sumColumns(squares)))
        .map((sum) => tensor.pointwise([sum], (s) => sqrt(s!)))
        .reduce((a, b) => tensor.add(a, b)),
  }),
  "wide-penalty": (): Adapter => ({
    ...honest("wide-penalty"),
    penalty: ({ layers }) => layers[0]!.parameter("D"),
  }),
  "poisoned-state": (): Adapter => ({
    ...honest("poisoned-state"),
    states: ({ outFeatures, inFeatures }) => [{ name: "mean", shape: [outFeatures, inFeatures] }],
    afterUpdate: ({ layers }) => {
      for (const { gradient, state } of layers) {
        tensor.assign(state("mean"), [gradient("D")], (mean, g) => mean!.add(g!).mul(0.5));
      }
    },
  }),
  "unknown-state": (): Adapter => ({
    ...honest("unknown-state"),
    afterUpdate: ({ layers }) => void layers[0]!.state("mean"),
  }),
  "moody-scalars": (): Adapter => ({
    ...honest("moody-scalars"),
    scalars: () => ({ chance: Math.random() }),
  }),
  "taken-suffix": (): Adapter => ({ ...honest("taken-suffix"), suffixes: ["lora_A.weight"] }),
};

/** The lie of that name. */
export function lie(name: string): unknown {
  return LIES[name]!();
}
