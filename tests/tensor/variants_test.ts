/** Choosing kernels while a program is planned. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { DEFAULT_DEVICE, type DeviceDescription } from "../../src/gpu/description.ts";
import { matmul } from "../../src/tensor/ops/matmul.ts";
import { plan, Program } from "../../src/tensor/plan.ts";
import { sizeClass } from "../../src/tensor/variants.ts";

const SOFTWARE: DeviceDescription = { ...DEFAULT_DEVICE, family: "subgroup8", subgroupSize: 8 };
const KEY = "matmul NT 64x40x48 f32";

function planned(device: DeviceDescription) {
  const program = new Program();
  const graph = program.block("product");
  const [x, w] = [graph.input("x", [64, 48], "f32"), graph.weight("w", [40, 48], "f32")];
  graph.output("y", matmul("NT", x, w));
  return plan(program, device);
}

const kernelOf = (device: DeviceDescription) => planned(device).blocks.get("product")!.dispatches[0]!.kernel;

Deno.test("a plan takes the kernel that the device is said to like, and says what it took", () => {
  const kernels = { [KEY]: "subgroup8 8x8" };
  assertEquals(planned(SOFTWARE).kernels.get(KEY)?.chosen, "subgroup8 32x32");
  assertEquals(planned({ ...SOFTWARE, kernels }).kernels.get(KEY)?.chosen, "subgroup8 8x8");
  assertEquals(kernelOf(SOFTWARE), "matmul NT f32 32x32");
  assertEquals(kernelOf({ ...SOFTWARE, kernels }), "matmul NT f32 8x8");
});

Deno.test("a kernel that cannot run here, or that nobody knows, is not taken", () => {
  for (const name of ["subgroup8 8x8", "of another version"]) {
    const device = { ...DEFAULT_DEVICE, kernels: { [KEY]: name } };
    assertEquals(planned(device).kernels.get(KEY)?.chosen, planned(DEFAULT_DEVICE).kernels.get(KEY)?.chosen);
  }
});

Deno.test("a choice can be tried in a block of its own, with each of its kernels", () => {
  const choice = planned(SOFTWARE).kernels.get(KEY)!;
  assert(choice.candidates.length > 1);
  const texts = choice.candidates.map(({ name }) => {
    const program = new Program();
    choice.trial(program.block("trial"));
    const tried = plan(program, { ...SOFTWARE, kernels: { [KEY]: name } });
    assertEquals([...tried.kernels].map(([key, { chosen }]) => [key, chosen]), [[KEY, name]]);
    return tried.blocks.get("trial")!.dispatches.map(({ wgsl }) => wgsl).join();
  });
  assertEquals(new Set(texts).size, texts.length, "each is another kernel");
});

Deno.test("a plan made again with the names of the first is the same, whatever its shapes have in common", () => {
  const texts = (device: DeviceDescription) => {
    const program = new Program();
    const graph = program.block("products");
    // One class of sizes; the columns of the second are no multiple of 4.
    for (const n of [80, 78]) {
      const [x, w] = [graph.input(`x${n}`, [64, 48], "f32"), graph.weight(`w${n}`, [n, 48], "f32")];
      graph.output(`y${n}`, matmul("NT", x, w));
    }
    const made = plan(program, device);
    const names = [...made.kernels].map(([key, { chosen }]) => [key, chosen] as const);
    return { names, kernels: made.blocks.get("products")!.dispatches.map(({ kernel }) => kernel) };
  };
  const first = texts(SOFTWARE);
  assertEquals(first.names.length, 1);
  assertEquals(new Set(first.kernels).size, 2);
  assertEquals(texts({ ...SOFTWARE, kernels: Object.fromEntries(first.names) }), first);
});

Deno.test("sizes of a class differ by less than a fifth", () => {
  for (let size = 1; size < 5000; size++) {
    const upper = sizeClass(size);
    assert(upper >= size && upper < size * 1.25 && sizeClass(upper) === upper, `${size}: ${upper}`);
  }
});
