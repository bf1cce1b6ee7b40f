/**
 * What an adapter does once an optimiser step: a penalty whose gradient is right, states that are well-formed and stay finite, and the
 * same bytes twice.
 *
 * @module
 */
import type { Gpu } from "../../gpu/device.ts";
import { stepScalar } from "../../tensor/expr/mod.ts";
import { compile } from "../../tensor/executable.ts";
import { elementCount, type Graph, type Tensor } from "../../tensor/graph.ts";
import { plan, Program } from "../../tensor/plan.ts";
import type {
  AdaptedLayer,
  Adapter,
  AdapterSettings,
  NetworkInputs,
  ParameterDefinition,
  StateDefinition,
  UpdateInputs,
} from "../adapter_contract.ts";
import { CheckFailure, type Checklist } from "./checklist.ts";
import { compareGradients, randomValues, TracedProgram, type Values } from "./traced.ts";

/** An adapter on a network of several layers. */
export interface NetworkSubject {
  readonly adapter: Adapter;
  readonly options: Readonly<Record<string, unknown>>;
  readonly settings: AdapterSettings;
  readonly layers: readonly AdaptedLayer[];
  readonly own: readonly (readonly ParameterDefinition[])[];
  readonly shared: readonly ParameterDefinition[];
  /** Values of a layer's parameter, or of a shared one where there is no layer, as training would begin with them. */
  initial(layer: number | undefined, name: string): Float32Array;
}

/** A tensor of the network, by what it is called here. */
interface Named {
  readonly key: string;
  readonly shape: readonly number[];
  readonly trained: boolean;
  readonly initial: Float32Array;
}

/** Checks what the adapter does once a step, if it does anything. */
export async function checkStepWork(subject: NetworkSubject, gpu: Gpu, list: Checklist): Promise<boolean> {
  const { penalty, afterUpdate, states, sharedStates, scalars } = subject.adapter;
  const passed: boolean[] = [];
  if (penalty) {
    passed.push(
      await list.step(
        "penalty",
        () => checkPenalty(subject, gpu),
        "penalty() must return one f32 number, [1], made of the parameters alone.",
      ),
    );
  }
  if (states || sharedStates || scalars || afterUpdate) {
    passed.push(
      await list.step(
        "work after the optimiser",
        () => checkUpdate(subject, gpu),
        "afterUpdate() assigns states and parameters with tensor.assign().",
      ),
    );
  }
  return passed.every(Boolean);
}

function parametersOf({ layers, own, shared, initial }: NetworkSubject): Named[] {
  const named = (p: ParameterDefinition, owner: string, layer?: number): Named => ({
    key: `${owner}.${p.name}`,
    shape: p.shape,
    trained: p.trainable !== false,
    initial: initial(layer, p.name),
  });
  return [
    ...shared.map((p) => named(p, "shared")),
    ...layers.flatMap(({ path }, i) => own[i]!.map((p) => named(p, path, i))),
  ];
}

/** Away from where training begins, where many a gradient is zero. */
function moved(parameters: readonly Named[]): Values {
  return Object.fromEntries(parameters.map(({ key, shape, trained, initial }, i) => {
    const away = randomValues(shape, 20 + i, 0.4).data;
    return [key, { shape, data: trained ? initial.map((x, j) => x + away[j]!) : initial }];
  }));
}

function network(subject: NetworkSubject, find: (key: string) => Tensor): NetworkInputs {
  const { settings, options, layers } = subject;
  return {
    layers: layers.map((layer) => ({ layer, parameter: (name) => find(`${layer.path}.${name}`) })),
    shared: (name) => find(`shared.${name}`),
    settings,
    options,
  };
}

async function checkPenalty(subject: NetworkSubject, gpu: Gpu): Promise<string> {
  const parameters = parametersOf(subject);
  const values = moved(parameters);
  const program = await TracedProgram.make(
    gpu,
    values,
    parameters.filter((p) => p.trained).map((p) => p.key),
    [1],
    (_, input) =>
      subject.adapter.penalty!(network(subject, (key) => {
        if (key in values) return input(key);
        throw new CheckFailure(`penalty() asks for the parameter "${key}", which is not declared`);
      })),
  );
  try {
    const start = await program.run({
      ...values,
      ...Object.fromEntries(parameters.map(({ key, shape, initial }) => [key, { shape, data: initial }])),
    });
    for (const [name, numbers] of [[undefined, start.y] as const, ...start.gradients]) {
      const bad = numbers.find((v) => !Number.isFinite(v));
      if (bad !== undefined) {
        const what = name === undefined ? "the penalty" : `the penalty's gradient of ${name}`;
        throw new CheckFailure(`where training begins ${what} is ${bad}`, {
          hint: "Roots and norms have no slope at 0: keep what is under a root away from it.",
        });
      }
    }
    return `${start.y[0]!.toPrecision(3)} at the start; ${await compareGradients(program, values)}`;
  } finally {
    program.destroy();
  }
}

/** A traced update with everything it reads and writes as states. */
async function checkUpdate(subject: NetworkSubject, gpu: Gpu): Promise<string> {
  const { adapter, layers, settings, options } = subject;
  const parameters = parametersOf(subject);
  const states = [
    ...statesOf("shared", adapter.sharedStates?.(layers, settings, options), subject.shared),
    ...layers.flatMap((layer, i) =>
      statesOf(layer.path, adapter.states?.(layer, settings, options), subject.own[i]!)
    ),
  ];
  const scalars = (step: number) => {
    const [once, again] = [0, 1].map(() => adapter.scalars?.(step, layers, settings, options) ?? {});
    const wrong = Object.entries(once!).find(([name, value]) =>
      !Number.isFinite(value) || value !== again![name]
    );
    if (wrong) {
      throw new CheckFailure(`the number ${wrong[0]} of step ${step} is ${wrong[1]}`, {
        hint: "scalars() gives finite numbers, the same for a step whenever it is asked.",
      });
    }
    return once!;
  };
  const numbers = scalars(1);
  const program = new Program();
  const graph = program.block("update");
  const views = trace(subject, graph, [...parameters, ...states], numbers);
  const executable = await compile(gpu, plan(program, gpu.description));
  try {
    const used = [...views].filter((key) => executable.plan.storages.has(key));
    const run = async (clipping: number) => {
      executable.poison();
      const begin = moved(parameters);
      for (const { key, initial } of states) if (used.includes(key)) executable.write(key, initial);
      for (const { key } of parameters) if (used.includes(key)) executable.write(key, begin[key]!.data);
      for (let step = 1; step <= settings.steps; step++) {
        executable.setScalars(Object.entries(scalars(step)));
        for (const [i, { key, shape, trained }] of parameters.entries()) {
          if (!trained || !used.includes(`gradient.${key}`)) continue;
          const { data } = randomValues(shape, 1000 * step + i);
          executable.write(`gradient.${key}`, clipping === 0 ? data.fill(NaN) : data);
        }
        if (used.includes("clipping")) executable.write("clipping", Float32Array.of(clipping));
        executable.run("update");
      }
      const kept = used.filter((key) => !key.startsWith("gradient."));
      const read = await executable.read(kept);
      gpu.check();
      for (const key of kept) {
        const bad = (read.get(key)!.data as Float32Array).find((v) => !Number.isFinite(v));
        if (bad === undefined) continue;
        throw new CheckFailure(
          `after ${settings.steps} steps ${
            clipping === 0 ? "without a finite gradient " : ""
          }${key} holds ${bad}`,
          {
            hint:
              "Where clipping is 0 the step was left out and its gradients may be NaN: select() the old value.",
          },
        );
      }
      return read;
    };
    const [once, again] = [await run(0.5), await run(0.5)];
    for (const [key, { data }] of once) {
      if (data.every((v, i) => Object.is(v, again.get(key)!.data[i]))) continue;
      throw new CheckFailure(`two runs on the same values left different bytes in ${key}`);
    }
    await run(0);
    return `${states.length} states, ${Object.keys(numbers).length} numbers a step; finite, same bytes twice`;
  } finally {
    executable.destroy();
  }
}

function statesOf(
  owner: string,
  list: readonly StateDefinition[] | undefined,
  parameters: readonly ParameterDefinition[],
): Named[] {
  const taken = new Set(parameters.map((p) => p.name));
  return (list ?? []).map(({ name, shape, initial = 0 }) => {
    if (taken.has(name)) throw new CheckFailure(`two parameters or states of ${owner} are named "${name}"`);
    taken.add(name);
    if (shape.length === 0 || shape.some((n) => !Number.isInteger(n) || n < 1) || !Number.isFinite(initial)) {
      throw new CheckFailure(`state "${name}" is [${shape.join(", ")}] and begins with ${initial}`, {
        hint: "Shapes are lists of whole numbers above 0; a state begins with a finite number.",
      });
    }
    const data = new Float32Array(elementCount(shape)).fill(initial);
    return { key: `${owner}.${name}`, shape, trained: false, initial: data };
  });
}

/** Traces the work and gives the keys of all storages it may have. */
function trace(
  subject: NetworkSubject,
  graph: Graph,
  tensors: readonly Named[],
  numbers: Readonly<Record<string, number>>,
): Set<string> {
  const known = new Map(tensors.map((t) => [t.key, t]));
  const find = (key: string): Tensor => {
    const found = known.get(key);
    if (!found) throw new CheckFailure(`afterUpdate() asks for "${key}", which is not declared`);
    return graph.state(key, found.shape, "f32");
  };
  const gradient = (key: string): Tensor => {
    if (!known.get(key)?.trained) throw new CheckFailure(`afterUpdate() asks for the gradient of "${key}"`);
    return graph.state(`gradient.${key}`, known.get(key)!.shape, "f32");
  };
  const own = network(subject, find);
  const inputs: UpdateInputs = {
    ...own,
    layers: own.layers.map((entry) => ({
      ...entry,
      gradient: (name) => gradient(`${entry.layer.path}.${name}`),
      state: (name) => find(`${entry.layer.path}.${name}`),
    })),
    sharedGradient: (name) => gradient(`shared.${name}`),
    sharedState: (name) => find(`shared.${name}`),
    clipping: graph.state("clipping", [1], "f32"),
    scalar: (name) => {
      if (name in numbers) return stepScalar(name);
      throw new CheckFailure(`afterUpdate() asks for the number "${name}", which scalars() does not give`);
    },
  };
  subject.adapter.afterUpdate?.(inputs);
  return new Set([...known.keys(), ...[...known.keys()].map((key) => `gradient.${key}`), "clipping"]);
}
