/**
 * Holds kernels with mistakes that were planted by rule (`tests/kernels/mutants.ts`) to an oracle: each has to be noticed.
 *
 * @module
 */
import { BUFFER_USAGE } from "../../src/gpu/buffer_usage.ts";
import type { DeviceDescription } from "../../src/gpu/description.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { compile } from "../../src/tensor/executable.ts";
import type { Graph, Tensor } from "../../src/tensor/graph.ts";
import type { Op } from "../../src/tensor/op.ts";
import { plan, Program } from "../../src/tensor/plan.ts";
import { type Mutant, mutate, type Mutated } from "../kernels/mutants.ts";
import type { Value } from "./harness.ts";

/** What is hunted in. */
export interface Hunt {
  readonly gpu: Gpu;
  readonly values: readonly Value[];
  /** Traces the program; kernels of the tensors given to `plant` get mistakes. */
  readonly build: (graph: Graph, plant: (tensor: Tensor) => void, ...inputs: Tensor[]) => readonly Tensor[];
  /** Whether outputs, and after them states, are right. */
  readonly isRight: (results: readonly Float32Array[]) => boolean;
  readonly scalars?: Record<string, number>;
  readonly device?: DeviceDescription;
  /** Whether a kernel is to get mistakes; all are by default. */
  readonly kernels?: (kernel: string) => boolean;
  /** Of how many mistakes of a kernel one is made, and which: all by default. */
  readonly share?: { readonly of: number; readonly at: number };
  /** These mistakes alone, by kernel and place in the text, and in all copies of what unrolling has made. */
  readonly everywhere?: ReadonlySet<string>;
}

/** A mistake that nobody noticed, and the kernel that makes it. */
export interface Unnoticed extends Mutant {
  readonly kernel: string;
  /** Which of the program's texts, in their order. */
  readonly text: number;
}

/** What was found. */
export interface Hunted {
  readonly mutants: number;
  readonly unnoticed: readonly Unnoticed[];
}

/**
 * Runs a program with each mistake of its kernels in turn, and first with none.
 *
 * @throws {Error} if the kernels are wrong without a mistake
 */
export async function hunt(
  {
    gpu,
    values,
    build,
    isRight,
    scalars = {},
    device = gpu.description,
    kernels = () => true,
    share,
    everywhere,
  }: Hunt,
): Promise<Hunted> {
  const program = new Program();
  const graph = program.block("test");
  const { index } = graph.scalar("mistake");
  const inputs = values.map(({ kind = "input", shape, dtype = "f32" }, i) =>
    graph.use({ kind, name: `x${i}`, shape, dtype, category: "test" })
  );
  const texts = new Map<string, Mutated>();
  const planted: Unnoticed[] = [];
  const mutated = (kernel: string, wgsl: string) => {
    let text = texts.get(wgsl);
    if (!text) {
      // The others get none, but their loops end too, whatever they are told.
      const nth = texts.size;
      const wanted = (at: number) => {
        if (!kernels(kernel)) return false;
        if (everywhere) return everywhere.has(`${nth} ${at}`);
        return !share || at % share.of === share.at % share.of;
      };
      text = mutate(wgsl, { first: planted.length + 1, index, wanted, copy: everywhere ? "every" : "last" });
      texts.set(wgsl, text);
      const called = wgsl.includes("begin_product(") ? `${kernel} of several` : kernel;
      planted.push(...text.mutants.map((mutant) => ({ ...mutant, kernel: called, text: nth })));
    }
    return text.wgsl;
  };
  const plant = (tensor: Tensor) => {
    const { op } = tensor.producer!;
    const mistaken: Op<unknown> = {
      ...op,
      lower: (context) =>
        op.lower({
          ...context,
          dispatch: (d) => context.dispatch({ ...d, wgsl: mutated(d.kernel, d.wgsl) }),
        }),
    };
    Object.assign(tensor.producer!, { op: mistaken });
  };
  const outputs = build(graph, plant, ...inputs);
  outputs.forEach((t, i) => graph.output(`y${i}`, t));
  const executable = await compile(gpu, plan(program, device));
  const states = values.flatMap((v, i) => v.kind === "state" ? [i] : []);
  // One wait for several runs: their results are put side by side.
  const kept = [...outputs.map((_, i) => `y${i}`), ...states.map((i) => `x${i}`)];
  const counts = [...outputs, ...states.map((i) => inputs[i]!)].map((t) =>
    t.shape.reduce((a, b) => a * b, 1)
  );
  const bytes = counts.map((count) => Math.ceil(count / 4) * 16);
  const all = bytes.reduce((a, b) => a + b, 0);
  const batch = Math.max(1, Math.min(16, Math.floor(2 ** 22 / all)));
  const results = gpu.createBuffer(batch * all, BUFFER_USAGE.storage, "results");
  const run = async (mistakes: readonly number[]) => {
    mistakes.forEach((mistake, nth) => {
      executable.poison();
      values.forEach((v, i) => executable.write(`x${i}`, v.data));
      executable.setScalars(Object.entries({ ...scalars, mistake }));
      executable.run("test");
      let at = nth * all;
      kept.forEach((name, i) => {
        executable.copy(name, i < outputs.length ? "test" : undefined, results.raw, at);
        at += bytes[i]!;
      });
    });
    const read = await gpu.read(results, 0, mistakes.length * all);
    gpu.check();
    return mistakes.map((_, nth) => {
      let at = nth * all;
      return counts.map((count, i) => {
        const numbers = new Float32Array(read, at, count);
        at += bytes[i]!;
        return numbers;
      });
    });
  };
  try {
    const [right] = await run([0]);
    if (!isRight(right!)) throw new Error("the kernels are wrong where no mistake is made");
    const unnoticed: Unnoticed[] = [];
    for (let first = 0; first < planted.length; first += batch) {
      const mutants = planted.slice(first, first + batch);
      (await run(mutants.map(({ number }) => number))).forEach((found, i) => {
        if (isRight(found)) unnoticed.push(mutants[i]!);
      });
    }
    return { mutants: planted.length, unnoticed };
  } finally {
    executable.destroy();
    results.destroy();
  }
}

/** Whether all numbers are within `tolerance` of what was expected, and those that are none where none was expected. */
export function isWithin(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): boolean {
  for (let i = 0; i < expected.length; i++) {
    const [a, e] = [actual[i]!, expected[i]!];
    if (Number.isNaN(e) ? !Number.isNaN(a) : !(Math.abs(a - e) <= tolerance)) return false;
  }
  return true;
}

/** Mistakes that change nothing that anybody could see. */
export interface Equivalent {
  /** Of what was hunted in, a kernel's name, a rule and a place: `what: kernel: rule: place`. */
  readonly mistake: RegExp;
  readonly because: string;
}

/** Hunts in several kernels, and counts. */
export class Hunters {
  #mutants = 0;
  #equivalent = new Map<Equivalent, number>();
  readonly #unnoticed: string[] = [];
  readonly #known: readonly Equivalent[];

  constructor(known: readonly Equivalent[]) {
    this.#known = known;
  }

  async hunt(what: string, hunted: Hunt): Promise<void> {
    const { mutants, unnoticed } = await hunt(hunted);
    this.#mutants += mutants;
    const named = unnoticed.map((one) => ({
      ...one,
      mistake: `${what}: ${one.kernel}: ${one.rule}: ${one.place}`,
    }));
    const reasons = named.map(({ mistake }) => this.#known.find((known) => known.mistake.test(mistake)));
    // Some copies of what is unrolled never get to work.
    const others = named.filter((_, i) => !reasons[i]);
    const everywhere = new Set(others.map(({ text, at }) => `${text} ${at}`));
    const again = others.length > 0 ? (await hunt({ ...hunted, everywhere })).unnoticed : [];
    for (const { text, at } of again) {
      const { mistake } = others.find((one) => one.text === text && one.at === at)!;
      console.log(`not noticed: ${mistake}`);
      this.#unnoticed.push(mistake);
    }
    for (const known of reasons) {
      if (known) this.#equivalent.set(known, (this.#equivalent.get(known) ?? 0) + 1);
    }
    const equivalent = reasons.filter((known) => known !== undefined).length;
    const noticed = mutants - equivalent - again.length;
    console.log(`${what}: ${mutants} mistakes, ${noticed} noticed, ${equivalent} without effect`);
  }

  /**
   * Tells how many there were.
   *
   * @param reasons Whether why some had no effect is told too
   * @throws {Error} naming the mistakes that nobody noticed
   */
  end(reasons: boolean): void {
    const without = [...this.#equivalent.values()].reduce((a, b) => a + b, 0);
    const noticed = this.#mutants - without - this.#unnoticed.length;
    console.log(`${this.#mutants} mistakes, ${noticed} noticed, ${without} without effect`);
    if (reasons) {
      for (const [{ because }, count] of this.#equivalent) {
        console.log(`  ${count}: ${because}`);
      }
    }
    if (this.#unnoticed.length === 0) return;
    throw new Error(`${this.#unnoticed.length} mistakes were not noticed:\n${this.#unnoticed.join("\n")}`);
  }
}
