/** Letting the device choose among kernels, of which some are slow, wrong or broken. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertGreater, assertRejects, assertStringIncludes } from "@std/assert";
import { DeviceError } from "../../src/base/errors.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { timeInTurn } from "../../src/gpu/stopwatch.ts";
import { matmul } from "../../src/tensor/ops/matmul.ts";
import { plan, Program } from "../../src/tensor/plan.ts";
import type { ChosenKernel } from "../../src/tensor/variants.ts";
import { distance, planTrial, Trial } from "../../src/tune/trial.ts";
import { TrialData } from "../../src/tune/trial_data.ts";
import { byCost, tuneKernels } from "../../src/tune/tune.ts";
import {
  addChoices,
  deviceIdentity,
  kernelsOf,
  knownChoices,
  type TunedChoice,
  tunedDeviceSchema,
} from "../../src/tune/tuned.ts";
import { freeing, gpuTest, modelTest, testGpu } from "../tensor/harness.ts";
import { BROKEN, doubled, doubling, QUICK, SLOW, SLOWER, WRONG } from "./doubling.ts";

const COUNT = 6_001;
const KEY = `doubling ${COUNT}`;

async function choiceOf(kernels: Parameters<typeof doubling>[0], count = COUNT): Promise<ChosenKernel> {
  const program = new Program();
  const graph = program.block("main");
  for (let use = 0; use < 3; use++) graph.output(`y${use}`, doubled(graph, count, doubling(kernels)));
  return plan(program, (await testGpu()).description).kernels.get(`doubling ${count}`)!;
}

modelTest("the fastest right kernel is found; wrong and broken ones are told and not taken", async (gpu) => {
  const choice = await choiceOf([SLOW, QUICK, SLOWER, WRONG, BROKEN]);
  assertEquals(choice.uses, 3);
  const begun: string[] = [];
  const { choices: [found, ...rest], left } = await tuneKernels(gpu, [choice], {
    onProgress: ({ done, total, key, kernel }) => begun.push(`${done + 1}/${total} ${key}: ${kernel}`),
  });
  assertEquals([rest, left], [[], {}]);
  assertEquals([found!.key, found!.first, found!.kernel, found!.candidates], [KEY, "slow", "quick", 5]);
  assertEquals(begun, ["broken", "wrong", "slower", "quick"].map((name, i) => `${i + 1}/4 ${KEY}: ${name}`));
  const tried = new Map(found!.tried.map((t) => [t.kernel, t]));
  assertStringIncludes(tried.get("broken")!.refused!, "does not compile");
  assertStringIncludes(tried.get("wrong")!.refused!, "its numbers are off by");
  assertGreater(tried.get("slower")!.ratio!, 1.5);
  assert(tried.get("quick")!.ratio! < 0.7, `it took ${tried.get("quick")!.ratio} of the time`);
  assertGreater(found!.firstSeconds, found!.seconds);
  assertEquals([found!.flops, found!.bytes], [2 * 512 * COUNT, 2 * 24_016]);
  // What was refused does not count against those who use the device later.
  gpu.check();
  const kept = tunedDeviceSchema.parse(
    JSON.parse(JSON.stringify({ version: 1, device: deviceIdentity(gpu), choices: [found] })),
  );
  assertEquals(kept.choices, [found!]);
});

modelTest("the kernel that stands first stays where none is better", async (gpu) => {
  const { choices: [found] } = await tuneKernels(gpu, [await choiceOf([QUICK, SLOW, WRONG])]);
  assertEquals([found!.kernel, found!.first], ["quick", "quick"]);
});

modelTest("trials, time and memory are bounded, and what was not tried is told", async (gpu) => {
  const choice = await choiceOf([SLOW, QUICK, SLOWER, WRONG, BROKEN]);
  assertEquals(byCost(choice), ["broken", "wrong", "slower", "quick"]);
  // Not what costs four times as much on paper as another.
  assertEquals(byCost(await choiceOf([BROKEN, { ...SLOW, cost: 4.5 }, QUICK])), ["quick"]);
  const { choices: [found] } = await tuneKernels(gpu, [choice], { trials: 2 });
  assertEquals([found!.kernel, found!.tried.map(({ kernel }) => kernel)], ["slow", ["broken", "wrong"]]);
  const left = async (options: Parameters<typeof tuneKernels>[2]) =>
    (await tuneKernels(gpu, [choice], options)).left[KEY];
  assertEquals(await left({ stopped: () => true }), "it was stopped");
  assertEquals(await left({ bytes: 1000 }), "it would take more memory than there is for it");
  // In the middle: what was found by then is no choice among all.
  let asked = 0;
  assertEquals(await left({ stopped: () => ++asked > 2 }), "it was stopped");
  // However little time there is, one kernel is tried where most of the time goes.
  const small = await choiceOf([QUICK, SLOW], 100);
  const short = await tuneKernels(gpu, [small, choice], { seconds: 0 });
  assertEquals(short.choices.map(({ key, tried }) => [key, tried.length]), [[KEY, 1]]);
  assertEquals(short.left, { "doubling 100": "there was no time for it" });
  // One kernel alone is no choice.
  assertEquals((await tuneKernels(gpu, [await choiceOf([QUICK])])).choices, []);
});

modelTest("work is timed with timestamps and without", async (gpu) => {
  const data = new TrialData();
  const choice = await choiceOf([SLOW, QUICK]);
  const trials = await Promise.all(
    ["slow", "quick"].map((name) =>
      Trial.open(gpu, planTrial(choice, name, gpu.description), new Map(), data)
    ),
  );
  const bare = { features: new Set(), device: gpu.device, idle: () => gpu.idle() } as unknown as Gpu;
  for (const device of gpu.features.has("timestamp-query") ? [gpu, bare] : [bare]) {
    await timeInTurn(device, [trials[1]!.track(1)], 1);
    const [slow, quick] = await timeInTurn(device, trials.map((t) => t.track(4)), 3) as [number[], number[]];
    assertEquals([slow.length, quick.length], [3, 3]);
    assert([...slow, ...quick].every((seconds) => seconds > 0 && seconds < 5));
    assertGreater(Math.min(...slow), Math.min(...quick));
  }
  trials.forEach((trial) => trial.destroy());
});

Deno.test({
  name: "what a device refuses apart is told, and later work goes on",
  sanitizeResources: false,
  sanitizeOps: false,
  async fn() {
    const gpu = await testGpu();
    await freeing(gpu, async () => {
      const mistake = async () => {
        const buffer = gpu.createBuffer(16, 0x80, "not for copies");
        gpu.device.queue.writeBuffer(buffer.raw, 0, new Uint32Array(4));
        buffer.destroy();
        await Promise.resolve();
      };
      await assertRejects(() => gpu.apart("a mistake", mistake), DeviceError, "the GPU refused a mistake");
      const error = await assertRejects(() =>
        gpu.apart("a mistake", () => Promise.reject(new Error("mine")))
      );
      assertEquals((error as Error).message, "mine");
      assertEquals(await gpu.apart("nothing", () => Promise.resolve(7)), 7);
      gpu.check();
    });
  },
});

gpuTest("kernels of a product give what the one that stands first gives", async (gpu) => {
  const program = new Program();
  const graph = program.block("product");
  const x = graph.input("x", [40, 36], "f32");
  graph.output("y", matmul("NT", x, graph.weight("w", [24, 36], "bf16")));
  const { kernels } = plan(program, gpu.description);
  const { choices: [found] } = await tuneKernels(gpu, kernels.values(), { trials: 1 });
  if (!found) return assert([...kernels.values()].every(({ candidates }) => candidates.length === 1));
  assertEquals(found.tried.filter(({ refused }) => refused !== undefined), []);
});

modelTest("measurements hold for the texts that were measured", async (gpu) => {
  const choice = await choiceOf([SLOW, QUICK, WRONG]);
  const { missing } = await knownChoices(gpu, [choice], []);
  assertEquals(missing.map(({ key }) => key), [KEY]);
  const { choices } = await tuneKernels(gpu, [choice]);
  assertEquals(await knownChoices(gpu, [choice], choices), { known: choices, missing: [] });
  // Another text of one of them, or another one beside them.
  for (const kernels of [[SLOW, QUICK, { ...WRONG, wgsl: BROKEN.wgsl! }], [SLOW, QUICK]]) {
    const { missing, known } = await knownChoices(gpu, [await choiceOf(kernels)], choices);
    assertEquals([missing.length, known], [1, []]);
  }
  assertEquals(await knownChoices(gpu, [await choiceOf([QUICK])], choices), { known: [], missing: [] });
});

Deno.test("newer measurements take the place of older ones, and few texts of a choice are kept", () => {
  const choice = (key: string, text: string, kernel = "a"): TunedChoice => ({
    ...{ key, text, kernel, first: "a", seconds: 1, firstSeconds: 1, flops: 1, bytes: 1 },
    ...{ candidates: 2, tried: [] },
  });
  const texts = (choices: readonly TunedChoice[]) => choices.map(({ key, text }) => key + text);
  let kept = addChoices([], [choice("p", "1"), choice("q", "1")]);
  kept = addChoices(kept, [choice("p", "1", "b"), choice("p", "2", "c")]);
  assertEquals(texts(kept), ["q1", "p1", "p2"]);
  assertEquals(kernelsOf(kept), { q: "a", p: "c" });
  for (const text of ["3", "4", "5"]) kept = addChoices(kept, [choice("p", text)]);
  assertEquals(texts(kept), ["q1", "p2", "p3", "p4", "p5"]);
});

Deno.test("outputs are as far apart as their worst number, and numbers that are none are infinitely far", () => {
  const f = (...values: number[]) => new Float32Array(values);
  assertEquals(distance([f(1, -1)], [f(1, -1)]), 0);
  assertEquals(distance([f(1, -1), f(3, 0, 0, 0)], [f(1, -1), f(2, 0, 0, 0)]), 1);
  assertEquals(distance([f(1, NaN)], [f(1, -1)]), Infinity);
  assertEquals(distance([new Int32Array([1, 2])], [new Int32Array([1, 2])]), 0);
  assertEquals(distance([new Int32Array([1, 3])], [new Int32Array([1, 2])]), Infinity);
  // Nothing to compare with: all zeros, no numbers, no outputs.
  for (const from of [[f(0, 0)], [f(1, NaN)], []]) assert(Number.isNaN(distance(from, from)));
});
