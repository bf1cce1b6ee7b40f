/** Each merge against its equation in f64, and what the equations do not say: ties, zeros, thresholds, draws. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { PluginError } from "../../src/registry/contract.ts";
import { dropAtRandom, type Rescaling } from "../../plugins/merges/drop.ts";
import { randomNumbers } from "../../src/registry/check/rows.ts";
import * as define from "./definitions.ts";
import { farthest, mergeCalled, mergeModels, mergeOne, model, type TestModel } from "./host.ts";

/** Rows and columns; large enough for several blocks of work, and not whole ones. */
const SHAPES: readonly (readonly number[])[] = [[7], [1], [3, 5], [67, 129], [5, 1], [1, 6]];

function drawn(count: number, seed: number, scale = 1): number[] {
  const next = randomNumbers(seed);
  return Array.from({ length: count }, () => Math.fround(scale * (next() + next() + next() - 1.5)));
}

const size = (shape: readonly number[]) => shape.reduce((product, n) => product * n, 1);

interface Drawn {
  readonly shape: readonly number[];
  readonly base: number[];
  readonly values: number[][];
}

/** A base and three models about it. */
function drawnModels(shape: readonly number[], seed = 1): Drawn {
  const base = drawn(size(shape), seed, 0.5);
  const near = (k: number) => drawn(size(shape), seed + k, 0.1).map((d, i) => Math.fround(base[i]! + d));
  return { shape, base, values: [1, 2, 3].map(near) };
}

/** Compares a method with its definition on every shape. */
async function compare(
  id: string,
  options: object,
  parentOptions: readonly object[],
  expected: (models: Drawn, masks: number[][]) => readonly number[],
  base = true,
): Promise<void> {
  for (const [s, shape] of SHAPES.entries()) {
    const models = drawnModels(shape, 10 * s + 1);
    const masks = models.values.map((_, k) => drawn(size(shape), 500 + k).map((x) => (x > 0.1 ? 0 : 1)));
    const got = await mergeOne(id, {
      ...(base ? { base: model(shape, models.base) } : {}),
      parents: parentOptions.map((own, k) => ({ model: model(shape, models.values[k]!), options: own })),
      options,
      mask: (k) => masks[k],
    });
    const difference = farthest(got, expected(models, masks));
    assert(difference <= 1e-6, `${id} on [${shape.join(", ")}] differs by ${difference}`);
  }
}

const WEIGHTS = [0.7, -0.2, 0.4];
const weighted = WEIGHTS.map((weight) => ({ weight }));
const parts = ({ values }: Drawn) => values.map((v, i) => ({ values: v, weight: WEIGHTS[i]! }));
const changes = ({ base, values }: Drawn) => define.changesOf(base, values.map((v) => ({ values: v })));

Deno.test("linear and task-arithmetic are weighted sums", async () => {
  await compare("linear", {}, weighted, (m) => define.linear(parts(m)), false);
  await compare("linear", { normalize: false }, weighted, (m) => define.linear(parts(m), false), false);
  const options = { lambda: 0.8, normalize: true };
  await compare(
    "task-arithmetic",
    options,
    weighted,
    (m) => define.added(m.base, changes(m), WEIGHTS, options),
  );
});

Deno.test("slerp, nuslerp, multislerp and karcher keep to the sphere", async () => {
  await compare("slerp", { t: 0.3 }, [{}, {}], ({ values: [a, b] }) => define.slerp(a!, b!, 0.3), false);
  const [first, second] = [{ weight: 1 }, { weight: 3 }];
  const nuslerp = (a: readonly number[], b: readonly number[]) => define.slerp(a, b, 0.75, 1 - 1e-12);
  await compare("nuslerp", {}, [first, second], ({ values: [a, b] }) => nuslerp(a!, b!), false);
  await compare("nuslerp", {}, [first, second], (m) => {
    const [a, b] = changes(m);
    return define.added(m.base, [nuslerp(a!, b!)], [1]);
  });
  const rows = (x: readonly number[], width: number) =>
    Array.from({ length: x.length / width }, (_, r) => x.slice(r * width, (r + 1) * width));
  await compare("nuslerp", { flatten: false }, [first, second], ({ shape, values: [a, b] }) => {
    const width = shape.at(-1)!;
    const [left, right] = [rows(a!, width), rows(b!, width)];
    return left.flatMap((row, r) => nuslerp(row, right[r]!));
  }, false);
  await compare(
    "nuslerp",
    { flatten: false, columns: true },
    [first, second],
    ({ shape, values: [a, b] }) => {
      if (shape.length === 1) return nuslerp(a!, b!);
      const width = shape[1]!;
      const column = (x: readonly number[], j: number) => x.filter((_, i) => i % width === j);
      const merged = Array.from({ length: width }, (_, j) => nuslerp(column(a!, j), column(b!, j)));
      return a!.map((_, i) => merged[i % width]![Math.floor(i / width)]!);
    },
    false,
  );
  const positive = [{ weight: 0.5 }, { weight: 0.3 }, { weight: 0.4 }];
  const own = (m: Drawn) => m.values.map((values, i) => ({ values, ...positive[i]! }));
  await compare("multislerp", {}, positive, (m) => define.multislerp(own(m)), false);
  const one = (m: Drawn) => m.base.length > 1;
  await compare(
    "multislerp",
    {},
    positive,
    (m) => (one(m) ? define.multislerp(own(m), m.base) : cancelled(m)),
  );
  await compare("karcher", {}, [{}, {}, {}], (m) => define.karcher(m.values), false);
});

/** On one entry, where units are +-1: m_i / |m| is the sign. */
function cancelled({ base, values }: Drawn): number[] {
  const weights = [0.5 / 1.2, 0.3 / 1.2, 0.4 / 1.2];
  const own = values.map(([x], i) => [weights[i]!, x! - base[0]!] as const);
  const sign = Math.sign(own.reduce((total, [w, d]) => total + w * Math.sign(d), 0));
  return [base[0]! + sign * own.reduce((total, [w, d]) => total + w * Math.abs(d), 0)];
}

Deno.test("ties trims, elects and takes the mean of those that agree", async () => {
  const densities = [0.5, 0.3, 0.8];
  const own = WEIGHTS.map((weight, i) => ({ weight, density: densities[i] }));
  const trimmed = (m: Drawn) => changes(m).map((d, i) => define.trimmed(d, densities[i]!));
  await compare("ties", { trim: "tensor" }, own, (m) => define.elected(m.base, trimmed(m), WEIGHTS));
  const options = { lambda: 1.2, normalize: false };
  await compare(
    "ties",
    { ...options, trim: "tensor" },
    own,
    (m) => define.elected(m.base, trimmed(m), WEIGHTS, options),
  );
});

Deno.test("a sign that nobody wins is +, and a change of 0 agrees with nobody", async () => {
  const parents = [[2, 0, -2], [-2, 0, -1], [0, 0, 5]].map((values) => ({
    model: model([3], values),
    options: { density: 1 },
  }));
  for (const trim of ["model", "tensor"]) {
    const given = { base: model([3], [0, 0, 0]), parents, options: { trim } };
    assertEquals(await mergeOne("ties", given), [2, 0, 5]);
  }
});

Deno.test("ties over the whole model keeps the largest of all tensors, exactly", async () => {
  const shapes = { a: [67, 129], b: [31], c: [4, 4] };
  // Tensors of very different sizes: trimmed one by one, each would keep its share.
  const scales = [1, 5, 0.2];
  const tensors = Object.entries(shapes).map(([name, shape], i) => {
    const models = drawnModels(shape, 40 + i);
    const values = models.values.map((v) =>
      v.map((x, k) => Math.fround(models.base[k]! + scales[i]! * (x - models.base[k]!)))
    );
    return { ...models, name, values };
  });
  const modelOf = (values: (t: typeof tensors[number]) => number[]): TestModel =>
    new Map(tensors.map((t) => [t.name, { shape: t.shape, values: values(t) }]));
  for (const density of [0, 0.01, 0.2, 0.77, 1]) {
    const merged = await mergeModels("ties", {
      base: modelOf((t) => t.base),
      parents: WEIGHTS.map((weight, k) => ({
        model: modelOf((t) => t.values[k]!),
        options: { weight, density },
      })),
    });
    const trimmed = WEIGHTS.map((_, k) =>
      define.trimmedOverModel(tensors.map((t) => [...changes(t)[k]!]), density)
    );
    for (const [i, { name, base }] of tensors.entries()) {
      const wanted = define.elected(base, trimmed.map((of) => of[i]!), WEIGHTS);
      assert(farthest(merged.get(name)!, wanted) <= 1e-6, `${name} at ${density}`);
    }
  }
});

Deno.test("a density of its own for a tensor is refused where the whole model is trimmed", () => {
  const { survey, parentOptions, options } = mergeCalled("ties");
  const memory = survey!.begin(1);
  const input = (density: number) => ({
    name: "w",
    base: new Float32Array(2),
    parents: [{ values: Float32Array.of(1, 2), options: parentOptions.parse({ density }) }],
    options: options.parse({}),
  });
  survey!.see(memory, input(0.5), 0);
  const error = assertThrows(
    () => survey!.see(memory, input(0.4), 0),
    PluginError,
    "the density of w is 0.4",
  );
  assert((error as PluginError).hint!.includes("trim: tensor"));
});

Deno.test("dare drops what its mask says and makes up for it, the paper's way or by the sum of sizes", async () => {
  const own = WEIGHTS.map((weight) => ({ weight, density: 0.6 }));
  for (const rescaling of ["density", "l1", "none"] as const) {
    const options = rescaling === "none" ? { rescale: false } : { rescaling };
    const thinned = (m: Drawn, masks: number[][]) =>
      changes(m).map((d, k) => {
        const left = define.dropped(d, masks[k]!, 0.6, rescaling);
        return left.every(Number.isFinite) ? left : d.map(() => 0);
      });
    await compare(
      "dare-linear",
      options,
      own,
      (m, masks) => define.added(m.base, thinned(m, masks), WEIGHTS),
    );
    await compare(
      "dare-ties",
      options,
      own,
      (m, masks) => define.elected(m.base, thinned(m, masks), WEIGHTS),
    );
    const sums = { ...options, normalize: false, lambda: 0.5 };
    await compare(
      "dare-ties",
      sums,
      own,
      (m, masks) => define.elected(m.base, thinned(m, masks), WEIGHTS, { normalize: false, lambda: 0.5 }),
    );
  }
});

Deno.test("della drops by rank in the row and divides by the probability of each entry", async () => {
  const own = WEIGHTS.map((weight) => ({ weight, density: 0.6, epsilon: 0.2 }));
  const thinned = (m: Drawn, masks: number[][]) =>
    changes(m).map((d, k) => {
      const probabilities = define.keepProbabilities(d, m.shape.at(-1)!, 0.6, 0.2);
      return d.map((x, i) => x * masks[k]![i]! / probabilities[i]!);
    });
  await compare("della", {}, own, (m, masks) => define.elected(m.base, thinned(m, masks), WEIGHTS));
  await compare("della-linear", {}, own, (m, masks) => define.added(m.base, thinned(m, masks), WEIGHTS));
});

Deno.test("dare keeps what is drawn below the density, not what is drawn at it", () => {
  const drawn = Float32Array.of(0, 0.25, 0.1, Math.fround(0.1) - 2 ** -27, 1 - 2 ** -24);
  const kept = (density: number, rescaling: Rescaling = "none") => {
    const values = Float32Array.of(2, -2, 2, -2, 2);
    dropAtRandom(values, drawn, density, rescaling);
    return [...values];
  };
  assertEquals(kept(0.25), [2, 0, 2, -2, 0]);
  // The f32 next to 0.1 is above it.
  assertEquals(kept(0.1), [2, 0, 0, -2, 0]);
  assertEquals(kept(Math.fround(0.1) + 1e-12), [2, 0, 2, -2, 0]);
  assertEquals(kept(0.5, "expectation"), [4, -4, 4, -4, 0]);
  for (const rescaling of ["none", "expectation", "l1"] as const) {
    assertEquals(kept(0, rescaling), [0, 0, 0, 0, 0]);
  }
});

Deno.test("della's draws keep each rank with its probability", async () => {
  const [width, rows, density, epsilon] = [5, 4000, 0.5, 0.3];
  const next = randomNumbers(3);
  const uniform = Float32Array.from({ length: width * rows }, next);
  const change = Array.from({ length: width * rows }, (_, i) => (i % 2 ? -1 : 1) * ((i * 3) % width + 1));
  const { merge, parentOptions, options } = mergeCalled("della-linear");
  const merged = await merge({
    name: "w",
    shape: [rows, width],
    base: new Float32Array(width * rows),
    parents: [{ values: Float32Array.from(change), options: parentOptions.parse({ density, epsilon }) }],
    options: options.parse({ rescale: false }),
    random: () => uniform,
    linalg: undefined!,
  });
  for (let rank = 0; rank < width; rank++) {
    const places = change.keys().filter((i) => Math.abs(change[i]!) === rank + 1).toArray();
    const kept = places.filter((i) => merged[i] !== 0).length / places.length;
    const wanted = density - epsilon + 2 * epsilon * rank / (width - 1);
    const deviation = Math.sqrt(wanted * (1 - wanted) / places.length);
    assert(Math.abs(kept - wanted) < 4 * deviation, `rank ${rank}: ${kept} where ${wanted} is expected`);
  }
});

Deno.test("dare leaves the expectation as it is, and keeps the share it says", async () => {
  const count = 20000;
  for (const density of [0.1, 0.5, 0.9]) {
    const { merge, parentOptions, options } = mergeCalled("dare-linear");
    const merged = await merge({
      name: "w",
      shape: [count],
      base: new Float32Array(count),
      parents: [{ values: new Float32Array(count).fill(1), options: parentOptions.parse({ density }) }],
      options: options.parse({}),
      random: (parent) => Float32Array.from({ length: count }, randomNumbers(parent + 11)),
      linalg: undefined!,
    });
    const deviation = Math.sqrt(density * (1 - density) / count);
    const kept = merged.filter((x) => x !== 0).length / count;
    assert(Math.abs(kept - density) < 4 * deviation, `${kept} of ${density}`);
    const mean = merged.reduce((sum, x) => sum + x, 0) / count;
    assert(Math.abs(mean - 1) < 4 * deviation / density, `mean ${mean}`);
  }
});

Deno.test("breadcrumbs drops both ends, and nothing at the top where its share is less than one entry", async () => {
  for (const [density, gamma] of [[0.6, 0.1], [0.6, 0], [0.9, 0.3], [1, 0.5], [0, 0.1]] as const) {
    const own = WEIGHTS.map((weight) => ({ weight, density, gamma }));
    const crumbs = (m: Drawn) => changes(m).map((d) => define.crumbs(d, density, gamma));
    await compare("breadcrumbs", {}, own, (m) => define.added(m.base, crumbs(m), WEIGHTS));
    await compare(
      "breadcrumbs-ties",
      {},
      own,
      (m) => define.elected(m.base, crumbs(m), WEIGHTS, { normalize: false }),
    );
  }
  const few = {
    base: model([4], [0, 0, 0, 0]),
    parents: [{ model: model([4], [4, -1, 3, 2]), options: {} }],
  };
  const own = { density: 0.5, gamma: 0.1 };
  const parents = [{ ...few.parents[0]!, options: own }];
  assertEquals(await mergeOne("breadcrumbs", { ...few, parents }), [4, 0, 3, 0]);
  assertEquals(await mergeOne("breadcrumbs", { ...few, parents, options: { faithful: true } }), [0, 0, 0, 0]);
});

Deno.test("model-stock, sce, nearswap, arcee-fusion and passthrough follow their equations", async () => {
  await compare("model-stock", {}, [{}, {}, {}], (m) => define.modelStock(m.base, changes(m)));
  await compare("model-stock", { filterWise: true }, [{}, {}, {}], (m) => {
    const width = m.shape.length > 1 ? m.shape.at(-1)! : m.base.length;
    return Array.from({ length: m.base.length / width }, (_, r) => {
      const row = (x: readonly number[]) => x.slice(r * width, (r + 1) * width);
      return define.modelStock(row(m.base), changes(m).map(row));
    }).flat();
  });
  for (const selectTopk of [0.3, 1]) {
    await compare("sce", { selectTopk }, [{}, {}, {}], (m) => {
      // Of one entry none is selected.
      const none = selectTopk < 1 && m.base.length === 1;
      return none ? m.base : define.sce(m.base, changes(m), selectTopk);
    });
  }
  await compare("nearswap", { t: 0.03 }, [{}], ({ base, values }) => define.nearswap(base, values[0]!, 0.03));
  await compare("arcee-fusion", {}, [{}], (m) => {
    const width = m.shape.at(-1)!;
    return define.arceeFusion(m.base, m.values[0]!, width);
  });
  await compare("passthrough", {}, [{ scale: -0.5 }], ({ values }) => values[0]!.map((x) => -0.5 * x), false);
});

Deno.test("sce counts only entries that vary, and elects signs without weights", async () => {
  const base = model([4], [0, 0, 0, 0]);
  // Three of four vary, half of which is one: the last, which two small parents turn against a large one.
  const parents = [[5, 1, 2, 9], [5, 2, 2.5, -5], [5, 1, 2, -5]].map((values) => ({
    model: model([4], values),
  }));
  const merged = await mergeOne("sce", { base, parents, options: { selectTopk: 0.5 } });
  assertEquals(merged, [0, 0, 0, -5]);
});

Deno.test("arcee-fusion adds to probabilities what keeps one that is nearly 0 from deciding alone", async () => {
  const shape = [24, 6];
  const base = drawn(144, 5, 20);
  const values = drawn(144, 6, 20);
  const merged = await mergeOne("arcee-fusion", {
    base: model(shape, base),
    parents: [{ model: model(shape, values) }],
  });
  assertEquals(merged, [...define.arceeFusion(base, values, 6)]);
});

Deno.test("sce takes mean squares below 1e-6 for equal only where it is asked to", async () => {
  const base = model([2], [0, 0]);
  const parents = [[1e-4, 0], [3e-4, 0]].map((values) => ({ model: model([2], values) }));
  const own = await mergeOne("sce", { base, parents });
  assertAlmostEquals(own[0]!, 2.8e-4, 1e-10);
  const theirs = await mergeOne("sce", { base, parents, like: "mergekit" });
  assertAlmostEquals(theirs[0]!, 2e-4, 1e-10);
});

Deno.test("a parent without length has no say in a direction", async () => {
  const parents = [[0, 0], [2, 0], [0, 1]].map((values) => ({ model: model([2], values) }));
  const diagonal = [Math.SQRT1_2, Math.SQRT1_2];
  assert(farthest(await mergeOne("multislerp", { parents }), diagonal) < 1e-6);
  assert(farthest(await mergeOne("karcher", { parents }), diagonal.map((x) => 1.5 * x)) < 1e-6);
  assertEquals(await mergeOne("slerp", { parents: parents.slice(0, 2) }), [1, 0]);
});

Deno.test("weights that cancel are refused where they are divided by, with the tensor's name", async () => {
  const parents = [{ weight: 1 }, { weight: -1 }].map((options) => ({ model: model([2], [1, 2]), options }));
  const base = model([2], [0, 0]);
  for (const id of ["linear", "task-arithmetic", "nuslerp", "multislerp", "dare-linear", "breadcrumbs"]) {
    const method = mergeCalled(id);
    const normalize = "normalize" in method.options.shape ? { normalize: true } : {};
    const given = {
      ...(method.base === "required" ? { base } : {}),
      parents,
      options: normalize,
      mask: () => [1, 1],
    };
    const error = await assertRejects(() => mergeOne(id, given), PluginError, "of w add up to 0");
    assertEquals(error.plugin, id);
  }
});

Deno.test("parents' options out of range are refused", () => {
  const refused = (id: string, options: object, path: string) => {
    const { error } = mergeCalled(id).parentOptions.safeParse(options);
    assertEquals(error?.issues[0]?.path, [path], `${id} ${JSON.stringify(options)}`);
  };
  for (const id of ["ties", "dare-linear", "dare-ties", "della", "breadcrumbs"]) {
    refused(id, { density: 1.1 }, "density");
    refused(id, { density: -0.1 }, "density");
    refused(id, { weight: NaN }, "weight");
  }
  refused("breadcrumbs", { gamma: 2 }, "gamma");
  refused("della", { density: 0.1, epsilon: 0.15 }, "epsilon");
  refused("della-linear", { density: 0.9, epsilon: 0.1 }, "epsilon");
  assert(mergeCalled("della").parentOptions.safeParse({ density: 1 }).success);
  assertEquals(mergeCalled("slerp").options.safeParse({ t: 1.5 }).success, false);
});
