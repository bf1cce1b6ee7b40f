/** Work that times nothing takes the kernels that its device has chosen before. */
// @ts-types="../../types/std_assert.d.ts"
import { assertAlmostEquals, assertEquals, assertGreater, assertMatch } from "@std/assert";
import { builtins } from "../../plugins/mod.ts";
import { evaluateModel } from "../../src/distill/evaluate/evaluate_model.ts";
import { generateTexts } from "../../src/distill/generate/generate_texts.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { Registry } from "../../src/registry/registry.ts";
import { InferenceProcess } from "../../src/runs/child/inference.ts";
import type { Plan } from "../../src/tensor/plan.ts";
import { deviceIdentity, kernelTexts, type TunedChoice, type TunedDevice } from "../../src/tune/tuned.ts";
import { type PlansFor, takenText, TunedDevices } from "../../src/tune/tuned_devices.ts";
import { withTiny } from "../distill/tiny_model.ts";
import { tunedChoice, tunedDevice } from "./tuned.ts";

/** Devices whose plans can be looked at. */
class WatchedDevices extends TunedDevices {
  readonly plans: Plan[] = [];
  gpu: Gpu | undefined;

  override async open(plans: PlansFor): Promise<Gpu> {
    const gpu = this.gpu = await super.open(plans);
    this.plans.push(...plans(gpu.description, true));
    return gpu;
  }
}

/** What their device would have measured if the second kernel were the best for each of some kinds of work. */
async function seconds(devices: WatchedDevices, isMeant: (key: string) => boolean): Promise<TunedDevice> {
  const choices: TunedChoice[] = [];
  for (const choice of devices.plans.flatMap(({ kernels }) => [...kernels.values()])) {
    const [first, second] = choice.candidates;
    if (!second || !isMeant(choice.key)) continue;
    const text = await kernelTexts(choice, devices.gpu!);
    choices.push(tunedChoice(choice.key, { text, kernel: second.name, first: first!.name }));
  }
  return { version: 1, device: deviceIdentity(devices.gpu!), choices };
}

const kernelsOf = ({ choices }: TunedDevice) =>
  Object.fromEntries(choices.map(({ key, kernel }) => [key, kernel]));

Deno.test({
  name:
    "eval, generate and the process that writes take what their device chose, if its texts still hold, and find the same",
  // What WebGPU of this runtime opens outlives a test.
  sanitizeOps: false,
  sanitizeResources: false,
  fn: () =>
    withTiny(async ({ teacher, heldOut }) => {
      const registry = new Registry().addAll(builtins);
      const measure = async (devices: TunedDevices) =>
        await evaluateModel({ model: teacher, data: heldOut, contextLength: 32, registry, devices });
      const plain = new WatchedDevices();
      const before = await measure(plain);
      assertEquals(plain.taken, {});
      const tuned = await seconds(plain, (key) => key.startsWith("matmul NT"));
      assertGreater(tuned.choices.length, 1);

      const devices = new TunedDevices([{ ...tuned, device: tunedDevice("another") }, tuned]);
      const after = await measure(devices);
      assertEquals(devices.taken, kernelsOf(tuned));
      assertAlmostEquals(after.loss, before.loss, 2e-6);
      assertMatch(takenText(devices.taken)!, /^kernels that this device chose before: .* for matmul NT/);

      // One whose texts are others by now is not taken, nor what another device chose.
      const [stale, ...others] = tuned.choices;
      const mixed = new TunedDevices([{ ...tuned, choices: [{ ...stale!, text: "earlier" }, ...others] }]);
      await measure(mixed);
      assertEquals(mixed.taken, kernelsOf({ ...tuned, choices: others }));

      // As the service's process writes: a text at a time, of all the positions that the model was trained for.
      const write = async (devices: TunedDevices) => {
        let pieces = 0;
        const [found] = await generateTexts({
          ...{ model: teacher, prompts: ["the cat"], batch: 1, devices, onText: () => ++pieces < 12 },
          ...{ maxTokens: 256, temperature: 0, topK: 0, topP: 1, seed: 5 },
        });
        return found!.text;
      };
      const writing = new WatchedDevices();
      const text = await write(writing);
      const chosen = await seconds(writing, () => true);
      assertGreater(chosen.choices.length, 0);
      const written = new TunedDevices([chosen]);
      assertEquals(await write(written), text);
      assertEquals(written.taken, kernelsOf(chosen));

      const process = await InferenceProcess.start({ model: { path: teacher }, tuned: [chosen] });
      try {
        assertEquals(process.kernels, kernelsOf(chosen));
      } finally {
        await process.close();
      }
    }, { contextLength: 256, seed: 5 }),
});
