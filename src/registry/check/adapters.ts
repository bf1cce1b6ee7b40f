/**
 * What adapters must do: well-formed parameters, an output of the layer's shape, gradients, a merged weight that means the same, and
 * whatever they do once an optimiser step.
 *
 * @module
 */
import type { Gpu } from "../../gpu/device.ts";
import { elementCount } from "../../tensor/graph.ts";
import type { AdaptedLayer, Adapter, LinearAlgebra, ParameterDefinition } from "../adapter_contract.ts";
import {
  draw,
  expertValues,
  hostValues,
  initialValues,
  MODEL,
  type Programs,
  SETTINGS,
  type Subject,
  TOKENS,
  traceLayer,
  tracePrograms,
  valuesOf,
} from "./adapter_subject.ts";
import { CheckFailure, type Checklist, CheckSkipped } from "./checklist.ts";
import { checkStepWork, type NetworkSubject } from "./step_work.ts";
import { compareGradients, openDevice, randomValues, type Values } from "./traced.ts";

/** Layers whose sizes differ, and one whose sizes do not. */
const SIZES = [[24, 40], [40, 24], [24, 24]] as const;
const SUFFIX_HINT = "List every suffix its parameters may have in `suffixes`, each unlike other adapters'.";

/** Checks an adapter on layers of several shapes. `linalg` is handed to parameters that begin from the weight. */
export async function checkAdapter(
  adapter: Adapter,
  options: Readonly<Record<string, unknown>>,
  list: Checklist,
  linalg: LinearAlgebra,
): Promise<void> {
  const subjects: Subject[] = [];
  const formed = await list.step("parameters", () => {
    for (const [i, [inFeatures, outFeatures]] of SIZES.entries()) {
      const path = `model.layers.0.layer_${i}`;
      const layer = { path, inFeatures, outFeatures, rank: SETTINGS.rank, alpha: SETTINGS.alpha };
      const own = adapter.parameters(layer, SETTINGS, options, MODEL);
      const shared = adapter.shared?.([layer], SETTINGS, options, MODEL) ?? [];
      checkParameters(adapter, [...own, ...shared]);
      const weight = randomValues([outFeatures, inFeatures], 3 + i, 0.3).data;
      const initial = initialValues([...own, ...shared], layer, weight, linalg);
      subjects.push({ adapter, options, layer, own, shared, weight, initial });
    }
    const { own, shared } = subjects[0]!;
    return [...own, ...shared].map((p) => `${p.suffix} [${p.shape.join(", ")}]`).join(", ");
  }, SUFFIX_HINT);
  if (!formed) return;
  if (adapter.peft) {
    await list.step("PEFT layout", () => {
      const { peftType, config } = adapter.peft!(SETTINGS, options);
      if (!/^[A-Z0-9_]+$/.test(peftType) || JSON.stringify(config) === undefined) {
        throw new CheckFailure(`peftType is ${JSON.stringify(peftType)}`, {
          hint: 'PEFT writes them as "LORA".',
        });
      }
      return `${peftType}: ${JSON.stringify(config)}`;
    });
  }
  let gpu: Gpu | undefined;
  try {
    for (const subject of subjects) {
      const { inFeatures, outFeatures } = subject.layer;
      const on = `[${outFeatures}, ${inFeatures}]`;
      let programs: Programs | undefined;
      try {
        const traced = await list.step(`forward ${on}`, async () => {
          gpu ??= await openDevice();
          programs = await tracePrograms(gpu, subject);
          return `f32 [T, ${outFeatures}]`;
        }, "forward() must return the output of the layer, f32 [T, out].");
        if (!traced || !programs) return;
        if (!await checkLayer(subject, programs, on, list)) return;
      } finally {
        for (const program of new Set(Object.values(programs ?? {}))) program.destroy();
      }
    }
    if (gpu) {
      if (!await checkStepWork(network(subjects, linalg), gpu, list)) return;
      await timing(gpu, subjects[0]!, list);
    }
  } finally {
    gpu?.destroy();
  }
}

function checkParameters(adapter: Adapter, parameters: readonly ParameterDefinition[]): void {
  if (!parameters.some((p) => p.trainable !== false)) {
    throw new CheckFailure("no parameter is trainable", { hint: "Return at least one from parameters()." });
  }
  const names = new Set<string>();
  for (const { name, suffix, shape, initialisation } of parameters) {
    if (names.has(name)) throw new CheckFailure(`two parameters are named "${name}"`);
    names.add(name);
    if (!adapter.suffixes.some((s) => suffix === s || suffix.startsWith(`${s}.`))) {
      throw new CheckFailure(`"${suffix}" is not among its suffixes`, { hint: SUFFIX_HINT });
    }
    if (shape.length === 0 || shape.some((n) => !Number.isInteger(n) || n < 1)) {
      throw new CheckFailure(`parameter "${name}" has the shape [${shape.join(", ")}]`, {
        hint: "Shapes are lists of whole numbers above 0.",
      });
    }
    if (!["constant", "given", "uniform", "normal", "fromWeight"].includes(initialisation?.kind)) {
      throw new CheckFailure(`parameter "${name}" does not say how it begins`, {
        hint: "Give it an initialisation.",
      });
    }
  }
}

async function checkLayer(
  subject: Subject,
  { use, train, experts }: Programs,
  on: string,
  list: Checklist,
): Promise<boolean> {
  const { adapter, layer, weight } = subject;
  const random = valuesOf(subject, "random");
  const merged = (values: Values) => {
    if (!adapter.merge) throw new CheckSkipped("it has no merge(): no weight means the same for every input");
    const result = adapter.merge(weight.slice(), hostValues(subject, values));
    if (!(result instanceof Float32Array) || result.length !== weight.length) {
      throw new CheckFailure(
        `merge() returns ${result?.length} numbers where [out, in] has ${weight.length}`,
        {
          hint: "Return the merged weight, a Float32Array of [out, in], row by row.",
        },
      );
    }
    return result;
  };
  const passed = [
    await list.step(`merge equals forward ${on}`, async () => {
      const { y } = await use.run(random);
      return closeTo(
        y,
        multiply(random.x!.data, merged(random), layer),
        "merge() gives another output than forward()",
        {
          hint: "merge() must give the weight whose plain product is what forward() returns, scale and all.",
        },
      );
    }),
    await list.step(`output at the start ${on}`, async () => {
      const values = valuesOf(subject, "start");
      const { y } = await use.run(values);
      const base = multiply(values.x!.data, weight, layer);
      if (adapter.merge) {
        closeTo(
          y,
          multiply(values.x!.data, merged(values), layer),
          "at its initial values merge() differs from forward()",
          {},
        );
      }
      const distance = y.reduce((far, v, i) => Math.max(far, Math.abs(v - base[i]!)), 0);
      if (distance < 1e-4) return "the base's";
      throw new CheckFailure(`it differs from the base's by ${distance.toPrecision(3)}`, {
        hint:
          "An adapter must begin where the base is: let one factor of the update begin at 0, or take the initial update off.",
      });
    }),
    await list.step(`gradients against finite differences ${on}`, () => {
      const trainable = [...subject.own, ...subject.shared].filter((p) => p.trainable !== false).map((p) =>
        p.name
      );
      const lost = trainable.filter((name) => !train.differentiable.includes(name));
      if (lost.length > 0) {
        throw new CheckFailure(
          `the output does not depend on ${lost.join(", ")}, so it would never be trained`,
          {
            hint: "Use every trainable parameter in forward(), or declare it with trainable: false.",
          },
        );
      }
      return compareGradients(train, random);
    }),
    await list.step(`same bytes twice ${on}`, async () => {
      const [a, b] = [await train.run(random), await train.run(random)];
      const same = (x: Float32Array, y: Float32Array) => x.every((v, i) => Object.is(v, y[i]));
      if (same(a.y, b.y) && [...a.gradients].every(([name, g]) => same(g, b.gradients.get(name)!))) {
        return "yes";
      }
      throw new CheckFailure("two runs on the same values gave different bytes");
    }),
  ];
  if (experts) {
    passed.push(
      await list.step(`experts equal forward ${on}`, async () => {
        const { y } = await use.run(random);
        const found = await experts.run(expertValues(subject, random));
        return closeTo(found.y, y, "experts() gives another output than forward()", {
          hint:
            "experts() must give for the rows of every expert what forward() gives for a layer, with linear() of what it is handed.",
        });
      }),
    );
  }
  if (adapter.plainLora) {
    passed.push(
      await list.step(`plain LoRA means the same ${on}`, () => {
        const { rank, scale, a, b } = adapter.plainLora!(hostValues(subject, random));
        const { inFeatures, outFeatures } = layer;
        if (a.length !== rank * inFeatures || b.length !== outFeatures * rank) {
          throw new CheckFailure(`its factors have ${a.length} and ${b.length} numbers`, {
            hint: "A is [rank, in], B [out, rank].",
          });
        }
        const sum = Float64Array.from(weight, (w, i) => {
          const [o, c] = [Math.floor(i / inFeatures), i % inFeatures];
          let update = 0;
          for (let k = 0; k < rank; k++) update += b[o * rank + k]! * a[k * inFeatures + c]!;
          return w + scale * update;
        });
        return closeTo(merged(random), sum, "plainLora() means another weight than merge()", {
          hint: "W + scale B A must be the merged weight.",
        });
      }),
    );
  }
  return passed.every(Boolean);
}

/** All layers as one network. */
function network(subjects: readonly Subject[], linalg: LinearAlgebra): NetworkSubject {
  const { adapter, options } = subjects[0]!;
  const layers = subjects.map((s) => s.layer);
  const shared = adapter.shared?.(layers, SETTINGS, options, MODEL) ?? [];
  const initial = initialValues(shared, layers[0]!, subjects[0]!.weight, linalg);
  return {
    adapter,
    options,
    settings: SETTINGS,
    layers,
    own: subjects.map((s) => s.own),
    shared,
    initial: (layer, name) => (layer === undefined ? initial : subjects[layer]!.initial).get(name)!,
  };
}

/** x [T, in] times the transpose of weight [out, in], in f64. */
function multiply(
  x: Float32Array,
  weight: Float32Array,
  { inFeatures, outFeatures }: AdaptedLayer,
): Float64Array {
  return Float64Array.from({ length: TOKENS * outFeatures }, (_, at) => {
    const [t, o] = [Math.floor(at / outFeatures), at % outFeatures];
    let sum = 0;
    for (let i = 0; i < inFeatures; i++) sum += x[t * inFeatures + i]! * weight[o * inFeatures + i]!;
    return sum;
  });
}

function closeTo(
  got: ArrayLike<number>,
  want: ArrayLike<number>,
  what: string,
  advice: { hint?: string },
): string {
  let worst = 0;
  for (let i = 0; i < want.length; i++) {
    const error = Math.abs(got[i]! - want[i]!) / Math.max(1, Math.abs(want[i]!));
    if (!(error <= 1e-4)) {
      throw new CheckFailure(`${what}: ${got[i]} where ${want[i]!.toPrecision(7)} is expected`, advice);
    }
    worst = Math.max(worst, error);
  }
  return `largest difference ${worst.toExponential(1)}`;
}

async function timing(gpu: Gpu, subject: Subject, list: Checklist): Promise<void> {
  await list.step("time and memory", async () => {
    const values = valuesOf(subject, "random");
    const best = async (adapted: boolean) => {
      const program = await traceLayer(gpu, subject, adapted ? draw : undefined);
      try {
        await program.run(values);
        let least = Infinity;
        for (let i = 0; i < 3; i++) {
          const begin = performance.now();
          await program.run(values);
          least = Math.min(least, performance.now() - begin);
        }
        return least;
      } finally {
        program.destroy();
      }
    };
    const [mine, base] = [await best(true), await best(false)];
    const trainable = [...subject.own, ...subject.shared].filter((p) => p.trainable !== false);
    const count = trainable.reduce((sum, p) => sum + elementCount(p.shape), 0);
    return `${count} trainable numbers (16 bytes each with gradient and moments) beside ${subject.weight.length}; ` +
      `${mine.toFixed(1)} ms forward and back, the plain layer ${base.toFixed(1)} ms, read-back included`;
  });
}
