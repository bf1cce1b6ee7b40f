/**
 * Holds kernels with mistakes that were planted by rule (`tests/kernels/mutants.ts`) to an oracle: each has to be noticed.
 *
 * @module
 */
import { BUFFER_USAGE } from "../../src/gpu/buffer_usage.ts";
import type { DeviceDescription } from "../../src/gpu/description.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { compile } from "../../src/tensor/executable.ts";
import { byteLength, type Graph, type Tensor } from "../../src/tensor/graph.ts";
import type { Op } from "../../src/tensor/op.ts";
import { plan, Program } from "../../src/tensor/plan.ts";
import { type Mutant, mutate, type Mutated, type Rule, withoutBarriers } from "../kernels/mutants.ts";
import { Guards, isUntouched } from "./guards.ts";
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
  /** Whether a kernel is to get mistakes, and at a place in it; all are by default. */
  readonly kernels?: (kernel: string, place: string) => boolean;
  /** Of how many mistakes of a kernel one is made, and which: all by default. */
  readonly share?: { readonly of: number; readonly at: number };
  /** These mistakes alone, by kernel and place in the text, in all copies of what unrolling has made. */
  readonly everywhere?: ReadonlySet<string>;
  /** The order of workgroups and threads: what one writes in another's place, a device that goes in order may write again. */
  readonly order?: Order;
  /** Whether a mistake is made at all, by `kernel: rule: place`; all are by default. */
  readonly only?: (mistake: string) => boolean;
  /** What becomes of a text with mistakes before it is compiled. */
  readonly finish?: (wgsl: string) => string;
}

/**
 * As they are numbered; or workgroups from the last on, and threads side by side none that go in step, unless they have to: the first ones first,
 * or the last.
 */
export type Order = "as numbered" | "first apart" | "last apart";

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
export async function hunt(hunted: Hunt): Promise<Hunted> {
  const { kernels = () => true, share, everywhere, only } = hunted;
  const copy = everywhere ? "every" : "last";
  const texts = new Map<string, Mutated>();
  const planted: Unnoticed[] = [];
  const apart: (Unnoticed & { readonly of: string; readonly wgsl: string })[] = [];
  const mutated = (kernel: string, wgsl: string, index: number) => {
    let text = texts.get(wgsl);
    if (text) return text.wgsl;
    // The others get none, but their loops end too, whatever they are told.
    const nth = texts.size;
    const called = wgsl.includes("begin_product(") ? `${kernel} of several` : kernel;
    const wanted = (at: number, rule: Rule, place: string) => {
      if (!kernels(kernel, place) || only && !only(`${called}: ${rule}: ${place}`)) return false;
      if (everywhere) return everywhere.has(`${nth} ${at}`);
      return !share || at >= FIRST_BARRIER || at % share.of === share.at % share.of;
    };
    text = mutate(wgsl, { first: planted.length + 1, index, wanted, copy });
    texts.set(wgsl, text);
    const named = { kernel: called, text: nth };
    planted.push(...text.mutants.map((mutant) => ({ ...mutant, ...named })));
    const rule = "no barrier";
    withoutBarriers(wgsl, copy).forEach((without, i) => {
      const at = FIRST_BARRIER + i;
      // Each takes a compilation of its own.
      if (share && (i + 7 * share.at) % (4 * share.of) !== 0) return;
      if (!wanted(at, rule, without.place)) return;
      apart.push({ number: 0, rule, at, place: without.place, ...named, of: wgsl, wgsl: without.wgsl });
    });
    return text.wgsl;
  };
  const unnoticed: Unnoticed[] = [];
  await running(hunted, mutated, async (areRight, batch) => {
    // Drivers compile what is run.
    if (planted.length + apart.length === 0) return;
    const [right] = await areRight([0]);
    if (!right) throw new Error("the kernels are wrong where no mistake is made");
    for (let first = 0; first < planted.length; first += batch) {
      const mutants = planted.slice(first, first + batch);
      (await areRight(mutants.map(({ number }) => number))).forEach((right, i) => {
        if (right) unnoticed.push(mutants[i]!);
      });
    }
  });
  for (const mutant of apart) {
    const { of, wgsl, ...others } = mutant;
    await running(hunted, (_, text) => text === of ? wgsl : text, async (areRight) => {
      if ((await areRight([0]))[0]) unnoticed.push(others);
    });
  }
  return { mutants: planted.length + apart.length, unnoticed };
}

/** Places of barriers are numbered from here on. */
const FIRST_BARRIER = 1_000_000;

/**
 * Compiles a program, and runs it for as long as `use` takes.
 *
 * @param text What becomes of a text; `index` is where among the step's numbers the one that chooses a mistake stands
 * @param use Is given what runs the program with mistakes, of at most `batch` at a time, and says which results are right
 */
async function running(
  {
    gpu,
    values,
    build,
    isRight,
    scalars = {},
    device = gpu.description,
    finish = (wgsl) => wgsl,
    order = "as numbered",
  }: Hunt,
  text: (kernel: string, wgsl: string, index: number) => string,
  use: (areRight: (mistakes: readonly number[]) => Promise<boolean[]>, batch: number) => Promise<void>,
): Promise<void> {
  const program = new Program();
  const graph = program.block("test");
  const { index } = graph.scalar("mistake");
  const inputs = values.map(({ kind = "input", shape, dtype = "f32" }, i) =>
    graph.use({ kind, name: `x${i}`, shape, dtype, category: "test" })
  );
  const guards = new Guards(graph, device, new Map(values.map((value, i) => [`x${i}`, value])));
  const planted = (kernel: string, wgsl: string) => {
    const made = finish(text(kernel, wgsl, index));
    return order === "as numbered" ? made : ordered(made, order);
  };
  const plant = (tensor: Tensor) => {
    const { op } = tensor.producer!;
    const mistaken: Op<unknown> = {
      ...op,
      lower: (context) =>
        op.lower({
          ...context,
          dispatch: (d) => {
            const tensors = d.tensors.map((t) => guards.widened(t));
            context.dispatch({ ...d, wgsl: planted(d.kernel, d.wgsl), tensors });
          },
        }),
    };
    Object.assign(tensor.producer!, { op: mistaken });
  };
  const outputs = build(graph, plant, ...inputs);
  outputs.forEach((t, i) => graph.output(`y${i}`, t));
  const executable = await compile(gpu, plan(program, device));
  const states = values.flatMap((v, i) => v.kind === "state" ? [inputs[i]!] : []);
  // What is right or wrong, wherever it is, and whatever else kernels write. One wait for several runs: their results are put side by side.
  const results = [...outputs, ...states].map((t, i) => guards.nameOf(t) ?? t.storage?.name ?? `y${i}`);
  const places = new Map<string, Place>(guards.written.map((guarded) => [guarded.name, guarded]));
  [...outputs, ...states].forEach((t, i) => {
    const words = byteLength(t) / 4;
    if (!places.has(results[i]!)) places.set(results[i]!, { name: results[i]!, own: words, words });
  });
  const all = [...places.values()].reduce((sum, { words }) => sum + 4 * words, 0);
  const batch = Math.max(1, Math.min(16, Math.floor(2 ** 22 / all)));
  const buffer = gpu.createBuffer(batch * all, BUFFER_USAGE.storage, "results");
  const areRight = async (mistakes: readonly number[]) => {
    mistakes.forEach((mistake, nth) => {
      executable.poison();
      values.forEach((v, i) => executable.write(`x${i}`, v.data));
      guards.fill(executable);
      executable.setScalars(Object.entries({ ...scalars, mistake }));
      executable.run("test");
      let at = nth * all;
      for (const { name, words } of places.values()) {
        executable.copy(name, /^y\d/.test(name) ? "test" : undefined, buffer.raw, at);
        at += 4 * words;
      }
    });
    const read = await gpu.read(buffer, 0, mistakes.length * all);
    gpu.check();
    return mistakes.map((_, nth) => {
      let at = nth * all;
      const found = new Map<string, Float32Array>();
      let touched = false;
      for (const { name, own, words } of places.values()) {
        touched ||= !isUntouched(new Uint32Array(read, at, words), own);
        found.set(name, new Float32Array(read, at, own));
        at += 4 * words;
      }
      return !touched && isRight(results.map((name) => found.get(name)!));
    });
  };
  try {
    await use(areRight, batch);
  } finally {
    executable.destroy();
    buffer.destroy();
  }
}

/** Memory that is read back: words of its own, and with what must not be touched. */
type Place = Pick<Guards["written"][number], "name" | "own" | "words">;

/** Lanes that go in step on a software device. */
const LANES = 8;

/** A kernel in an order. */
function ordered(wgsl: string, order: Order): string {
  if (!wgsl.includes("@builtin(num_workgroups) groups:")) return wgsl;
  const main = wgsl.indexOf("fn main(");
  const begin = wgsl.indexOf(" {\n", main) + 2;
  const threads = Number(/@workgroup_size\((\d+)\)/.exec(wgsl)![1]);
  const isApart = !/subgroup/.test(wgsl) && threads % LANES === 0;
  const [, name] = /@builtin\(local_invocation_index\) (\w+):/.exec(wgsl) ?? [];
  const group = "let group = vec3<u32>(groups.x - 1u - nth.x, groups.y - 1u - nth.y, nth.z);";
  const place = `mine % ${LANES}u * ${threads / LANES}u + mine / ${LANES}u`;
  const thread = `let ${name} = ${order === "first apart" ? place : `${threads - 1}u - (${place})`};`;
  let head = wgsl.slice(main, begin).replace("(workgroup_id) group:", "(workgroup_id) nth:");
  if (isApart) head = head.replace(/(local_invocation_index\)) \w+:/, "$1 mine:");
  return `${wgsl.slice(0, main)}${head}\n  ${group}\n  ${isApart ? thread : ""}${wgsl.slice(begin)}`;
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

/** Where only some mistakes are to be made, a pattern over what {@linkcode Equivalent} is one over. */
const PATTERN = Deno.env.get("LIMBECK_MISTAKES");
const SOME = PATTERN === undefined ? undefined : new RegExp(PATTERN);

/** Hunts in several kernels, and counts. */
export class Hunters {
  #mutants = 0;
  #equivalent = new Map<Equivalent, number>();
  readonly #unnoticed: string[] = [];
  readonly #known: readonly Equivalent[];

  constructor(known: readonly Equivalent[]) {
    this.#known = known;
  }

  hunt(what: string, hunted: Hunt): Promise<void> {
    return this.huntBy(what, (more) => hunt({ ...hunted, ...more }));
  }

  /** @param how Hunts in all that there is, or in those mistakes alone */
  async huntBy(
    what: string,
    how: (more: Pick<Hunt, "only" | "everywhere" | "order">) => Promise<Hunted>,
  ): Promise<void> {
    const only = SOME === undefined ? {} : { only: (mistake: string) => SOME.test(`${what}: ${mistake}`) };
    const { mutants, unnoticed } = await how(only);
    this.#mutants += mutants;
    const named = unnoticed.map((one) => ({
      ...one,
      mistake: `${what}: ${one.kernel}: ${one.rule}: ${one.place}`,
    }));
    const reasons = named.map(({ mistake }) => this.#known.find((known) => known.mistake.test(mistake)));
    // Some copies of what is unrolled never get to work, and some are hidden by the order of workgroups or threads.
    let left = named.filter((_, i) => !reasons[i]);
    for (const order of ["first apart", "last apart"] as const) {
      if (left.length === 0) break;
      const everywhere = new Set(left.map(({ text, at }) => `${text} ${at}`));
      const { unnoticed } = await how({ ...only, everywhere, order });
      left = left.filter((one) => unnoticed.some(({ text, at }) => text === one.text && at === one.at));
    }
    for (const { mistake } of left) {
      console.log(`not noticed: ${mistake}`);
      this.#unnoticed.push(mistake);
    }
    for (const known of reasons) {
      if (known) this.#equivalent.set(known, (this.#equivalent.get(known) ?? 0) + 1);
    }
    const equivalent = reasons.filter((known) => known !== undefined).length;
    const noticed = mutants - equivalent - left.length;
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
