/**
 * An adapter on one layer as the checks look at it: parameters, what goes in, and the programs of its forward pass.
 *
 * @module
 */
import type { Gpu } from "../../gpu/device.ts";
import { elementCount, type Tensor } from "../../tensor/graph.ts";
import { linear } from "../../tensor/ops/matmul.ts";
import { normal } from "../../tensor/ops/normal.ts";
import { pointwise } from "../../tensor/ops/pointwise.ts";
import { part } from "../../tensor/ops/views.ts";
import type {
  AdaptedLayer,
  AdaptedModel,
  Adapter,
  AdapterInputs,
  AdapterSettings,
  AdapterValues,
  LinearAlgebra,
  ParameterDefinition,
} from "../adapter_contract.ts";
import { CheckFailure } from "./checklist.ts";
import { randomValues, TracedProgram, type Values } from "./traced.ts";

/** Settings of a recipe that checks are done with. */
export const SETTINGS: AdapterSettings = {
  rank: 4,
  alpha: 8,
  dropout: 0,
  rslora: false,
  loraPlusRatio: 1,
  steps: 10,
};
/** Positions in a forward pass. */
export const TOKENS = 7;
/** The model whose layer it is said to be. */
export const MODEL: AdaptedModel = { hiddenSize: 20, sourceLayers: 5, keptLayers: [0, 2, 3] };

/** An adapter on one layer. */
export interface Subject {
  readonly adapter: Adapter;
  readonly options: Readonly<Record<string, unknown>>;
  readonly layer: AdaptedLayer;
  readonly own: readonly ParameterDefinition[];
  readonly shared: readonly ParameterDefinition[];
  readonly weight: Float32Array;
  /** Parameters as training would begin with them. */
  readonly initial: ReadonlyMap<string, Float32Array>;
}

/** Parameters as training would begin with them. */
export function initialValues(
  parameters: readonly ParameterDefinition[],
  layer: AdaptedLayer,
  weight: Float32Array,
  linalg: LinearAlgebra,
): Map<string, Float32Array> {
  return new Map(parameters.map((p, i): [string, Float32Array] => {
    const init = p.initialisation;
    const count = elementCount(p.shape);
    if (init.kind === "constant") return [p.name, new Float32Array(count).fill(init.value)];
    if (init.kind === "uniform") return [p.name, randomValues(p.shape, 60 + i, init.bound).data];
    if (init.kind === "normal") {
      // The sum of three uniform numbers is near enough to normal here.
      const parts = [0, 1, 2].map((k) => randomValues(p.shape, 60 + 3 * i + k, init.deviation).data);
      return [p.name, parts[0]!.map((x, j) => x + parts[1]![j]! + parts[2]![j]!)];
    }
    const data = init.kind === "given" ? init.values() : init.compute(weight.slice(), layer, linalg);
    if (data.length !== count) {
      throw new CheckFailure(
        `parameter "${p.name}" begins with ${data.length} numbers, its shape has ${count}`,
      );
    }
    return [p.name, data];
  }));
}

/** Values as a plugin reads them on the host. */
export function hostValues({ own, shared, layer, options }: Subject, values: Values): AdapterValues {
  const of = (list: readonly ParameterDefinition[]) => (name: string) => {
    if (list.some((p) => p.name === name)) return values[name]!.data;
    throw new CheckFailure(`it asks for the parameter "${name}", which is not declared`);
  };
  return { parameter: of(own), shared: of(shared), layer, settings: SETTINGS, options };
}

/**
 * The forward pass as it is used and as it is trained: two where the adapter draws noise, else one and the same; and that of experts, where it
 * has one.
 */
export interface Programs {
  readonly use: TracedProgram;
  readonly train: TracedProgram;
  readonly experts?: TracedProgram;
}

/** Traces the forward pass of a subject. @throws {CheckFailure} where it has another shape than the layer's output */
export async function tracePrograms(gpu: Gpu, subject: Subject): Promise<Programs> {
  let noisy = false;
  const quiet = (x: Tensor) => (noisy = true, x);
  const use = await traceLayer(gpu, subject, quiet);
  let train = use;
  try {
    if (noisy) train = await traceLayer(gpu, subject, draw);
    const experts = subject.adapter.experts && await traceExperts(gpu, subject);
    return { use, train, ...(experts ? { experts } : {}) };
  } catch (error) {
    for (const program of new Set([use, train])) program.destroy();
    throw error;
  }
}

/** Two experts, of which the first has the parameters of the layer and all rows; see {@linkcode expertValues}. */
function traceExperts(gpu: Gpu, subject: Subject): Promise<TracedProgram> {
  const { adapter, options, layer, own } = subject;
  const values = expertValues(subject, valuesOf(subject, "random"));
  return TracedProgram.make(gpu, values, [], [TOKENS, layer.outFeatures], (_, input) => {
    const [x, weight] = [input("x"), input("weight")];
    return adapter.experts!({
      x,
      base: () => linear(x, weight),
      parameter(name) {
        if (own.some((p) => p.name === name)) return input(name);
        throw new CheckFailure(`experts() asks for the parameter "${name}", which is not declared`);
      },
      linear: (x, stack) => linear(x, part(stack, 0, [stack.dim(0) / 2, stack.dim(1)])),
      layer: { ...layer, experts: 2 },
      settings: SETTINGS,
      options,
    });
  });
}

/** Parameters of two experts: those of the layer, and others. */
export function expertValues({ own }: Subject, values: Values): Values {
  const stacks = own.map(({ name, shape }) => {
    const { data } = values[name]!;
    const both = new Float32Array(2 * data.length).fill(0.5);
    both.set(data);
    return [name, { shape: [2 * shape[0]!, ...shape.slice(1)], data: both }] as const;
  });
  return { ...values, ...Object.fromEntries(stacks) };
}

/** The same noise at every run, so that the output can be differentiated by shifting what goes in. */
export function draw(x: Tensor, deviation: Tensor): Tensor {
  const e = normal(x.graph, x.shape, { site: 0, key: x.graph.scalar("noise") });
  return pointwise([x, deviation, e], (x, d, e) => x!.add(d!.mul(e!)));
}

/** @param noise What `noise` of the contract does; absent for the layer without adapter */
export function traceLayer(
  gpu: Gpu,
  subject: Subject,
  noise?: AdapterInputs["noise"],
): Promise<TracedProgram> {
  const { adapter, options, layer, own, shared } = subject;
  const values = valuesOf(subject, "random");
  const wanted = ["x", ...[...own, ...shared].filter((p) => p.trainable !== false).map((p) => p.name)];
  return TracedProgram.make(
    gpu,
    values,
    noise ? wanted : ["x"],
    [TOKENS, layer.outFeatures],
    (_, input) => {
      const of = (list: readonly ParameterDefinition[], what: string) => (name: string) => {
        if (list.some((p) => p.name === name)) return input(name);
        throw new CheckFailure(`forward() asks for the ${what} "${name}", which is not declared`);
      };
      const [x, weight] = [input("x"), input("weight")];
      const base = linear(x, weight);
      if (!noise) return base;
      const made = new Map<string, Tensor>();
      return adapter.forward({
        x,
        weight,
        base: () => base,
        parameter: of(own, "parameter"),
        shared: of(shared, "shared parameter"),
        dropout: (t) => t,
        noise,
        prompt: () => {
          if (adapter.readsPrompt) return input(PROMPT);
          throw new CheckFailure("forward() calls prompt(), which is not declared", {
            hint: "Write readsPrompt: true, so that data without prompts are refused.",
          });
        },
        once: (name, trace) => {
          if (!made.has(name)) made.set(name, trace());
          return made.get(name)!;
        },
        layer,
        settings: SETTINGS,
        options,
      });
    },
  );
}

/** Stands for the pooled prompts among the values of a program; no parameter is called so. */
const PROMPT = "(prompt)";

/** Everything that goes into the program, at the start of training or with trainable parameters moved at random. */
export function valuesOf(subject: Subject, at: "start" | "random"): Values {
  const { layer: { inFeatures, outFeatures }, own, shared, weight, initial } = subject;
  const values: Record<string, Values[string]> = {
    x: randomValues([TOKENS, inFeatures], 1),
    weight: { shape: [outFeatures, inFeatures], data: weight },
    [PROMPT]: randomValues([TOKENS, MODEL.hiddenSize], 2),
  };
  [...own, ...shared].forEach((p, i) => {
    const start = initial.get(p.name)!;
    const away = at === "random" && p.trainable !== false
      ? randomValues(p.shape, 20 + i, 0.4).data
      : undefined;
    values[p.name] = { shape: p.shape, data: away ? start.map((x, j) => x + away[j]!) : start };
  });
  return values;
}
