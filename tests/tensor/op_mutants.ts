/**
 * Holds kernels with mistakes that were planted by rule (`tests/kernels/mutants.ts`) to the tests of their ops: each has to make one of them
 * fail. Nothing is known of an op but its tests, which are run again for each mistake of a kernel that they launch.
 *
 * @module
 */
import { Executable } from "../../src/tensor/executable.ts";
import { Graph } from "../../src/tensor/graph.ts";
import type { Op } from "../../src/tensor/op.ts";
import { mutate, type Rule } from "../kernels/mutants.ts";
import type { Hunt, Hunted, Unnoticed } from "./mutants.ts";

/** What is hunted in. */
export interface TestsHunt extends Pick<Hunt, "share" | "everywhere" | "only" | "kernels"> {
  /** Files of tests, beside this one. */
  readonly files: readonly string[];
  /** Which of their tests; all are by default, but those that plant mistakes of their own. */
  readonly tests?: (name: string) => boolean;
}

interface Test {
  readonly name: string;
  readonly run: () => Promise<void>;
}

/** Tests that hold kernels to mistakes of their own pass where there are mistakes. */
const PLANTS = /planted|mistake|slip|do(es)? not pass|is noticed/;

let imported = 0;

/** The tests of files, which are not registered. */
async function testsOf(files: readonly string[]): Promise<Test[]> {
  const found: Test[] = [];
  const { test } = Deno;
  const take = (first: string | Deno.TestDefinition, second?: Deno.TestDefinition["fn"]) => {
    const { name, fn } = typeof first === "string" ? { name: first, fn: second! } : first;
    found.push({ name, run: async () => await fn({ name } as Deno.TestContext) });
  };
  Object.assign(Deno, { test: take });
  try {
    // Anew each time, and apart from the same files where their tests are registered: a module that was loaded before defines no test.
    for (const file of files) await import(new URL(`${file}?hunted=${imported++}`, import.meta.url).href);
  } finally {
    Object.assign(Deno, { test });
  }
  return found;
}

/** What the number that chooses a mistake is called. */
const SCALAR = "mistake in whatever is launched";

/** A text that some op launches, with its mistakes' numbers; `index` is where among a step's numbers the one that chooses stands. */
interface Text {
  readonly mutants: readonly number[];
  mutated(index: number): string;
}

/** Puts mistakes into whatever ops launch, and chooses one. */
class Planter {
  /** The number of the mistake that is made. */
  mistake = 0;
  readonly planted: Unnoticed[] = [];
  readonly #hunt: TestsHunt;
  readonly #texts = new Map<string, Text>();
  readonly #made = new Set<string>();
  readonly #launched = new Set<Text>();

  constructor(hunt: TestsHunt) {
    this.#hunt = hunt;
  }

  /** Numbers of the mistakes of all texts that were launched since this was asked last. */
  launched(): number[] {
    const all = [...this.#launched].flatMap(({ mutants }) => mutants);
    this.#launched.clear();
    return all;
  }

  /** Plants in all that is launched until what is returned is called. */
  install(): () => void {
    const { add } = Graph.prototype;
    const { runSlice } = Executable.prototype;
    const lowers = new Map<Op<unknown>, Op<unknown>["lower"]>();
    const plant = (op: Op<unknown>) => {
      if (lowers.has(op)) return;
      const { lower } = op;
      lowers.set(op, lower);
      Object.assign(op, { lower: this.#lowering(lower) });
    };
    const mistake = () => this.mistake;
    Graph.prototype.add = function <A>(op: Op<A>, ...others: [Parameters<typeof add>[1], A]) {
      plant(op as Op<unknown>);
      return add.call(this, op as Op<unknown>, ...others);
    };
    Executable.prototype.runSlice = function (...slice) {
      this.setScalars([[SCALAR, mistake()]]);
      runSlice.apply(this, slice);
    };
    return () => {
      Graph.prototype.add = add;
      Executable.prototype.runSlice = runSlice;
      for (const [op, lower] of lowers) Object.assign(op, { lower });
    };
  }

  #lowering(lower: Op<unknown>["lower"]): Op<unknown>["lower"] {
    return (context) =>
      lower({
        ...context,
        dispatch: (d) => {
          const { index } = context.outputs[0]!.graph.scalar(SCALAR);
          context.dispatch({ ...d, wgsl: this.#mutated(d.kernel, d.wgsl, index) });
        },
      });
  }

  #mutated(kernel: string, wgsl: string, index: number): string {
    // Some ops launch what others do.
    if (this.#made.has(wgsl)) return wgsl;
    let text = this.#texts.get(wgsl);
    if (!text) {
      const { kernels, only, everywhere, share } = this.#hunt;
      const nth = this.#texts.size;
      const wanted = (at: number, rule: Rule, place: string) => {
        if (kernels?.(kernel, place) === false || only?.(`${kernel}: ${rule}: ${place}`) === false) {
          return false;
        }
        if (everywhere) return everywhere.has(`${nth} ${at}`);
        return !share || at % share.of === share.at % share.of;
      };
      const first = this.planted.length + 1;
      const options = { first, wanted, copy: everywhere ? "every" as const : "last" as const };
      const { mutants } = mutate(wgsl, { ...options, index });
      const byIndex = new Map<number, string>();
      const mutated = (index: number) => {
        if (!byIndex.has(index)) byIndex.set(index, mutate(wgsl, { ...options, index }).wgsl);
        return byIndex.get(index)!;
      };
      text = { mutated, mutants: mutants.map(({ number }) => number) };
      this.#texts.set(wgsl, text);
      this.planted.push(...mutants.map((mutant) => ({ ...mutant, kernel, text: nth })));
    }
    this.#launched.add(text);
    const made = text.mutated(index);
    this.#made.add(made);
    return made;
  }
}

/**
 * Runs tests with each mistake of the kernels that they launch in turn, and first with none.
 *
 * @throws {Error} if a test fails without a mistake
 */
export async function huntInTests(hunt: TestsHunt): Promise<Hunted> {
  const { tests: wanted = () => true } = hunt;
  const tests = (await testsOf(hunt.files)).filter(({ name }) => !PLANTS.test(name) && wanted(name));
  if (tests.length === 0) throw new Error(`${hunt.files.join(", ")}: there is no test to run`);
  const planter = new Planter(hunt);
  const remove = planter.install();
  try {
    const runs: { test: Test; ms: number; mutants: readonly number[] }[] = [];
    for (const test of tests) {
      try {
        await test.run();
      } catch (error) {
        if (!/no kernel of .* holds/.test(String(error))) throw error;
        console.log(`set aside: ${test.name}: it plants mistakes of its own`);
        planter.launched();
        continue;
      }
      const mutants = planter.launched();
      if (mutants.length === 0) continue;
      // What it takes when all is compiled.
      const begun = performance.now();
      await test.run();
      planter.launched();
      runs.push({ test, mutants, ms: performance.now() - begun });
    }
    // The shortest first: what they notice needs no other.
    const noticed = new Set<number>();
    for (const { test, mutants } of runs.toSorted((a, b) => a.ms - b.ms)) {
      for (const mutant of mutants.filter((number) => !noticed.has(number))) {
        planter.mistake = mutant;
        if (await fails(test)) noticed.add(mutant);
      }
    }
    const { planted } = planter;
    return { mutants: planted.length, unnoticed: planted.filter(({ number }) => !noticed.has(number)) };
  } finally {
    remove();
  }
}

async function fails({ run }: Test): Promise<boolean> {
  try {
    await run();
    return false;
  } catch {
    return true;
  }
}
