/**
 * A checkpoint written before states and choices of a plan had the names that the code has for them now, of a run as `RECIPE` says: such
 * runs go on.
 */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals } from "@std/assert";
import { readCheckpoint, writeCheckpoint } from "../../src/distill/checkpoint/checkpoint.ts";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import { DEFAULT_DEVICE } from "../../src/gpu/description.ts";
import { tinyRecipe, tinySetup, withTiny } from "./tiny_model.ts";

const RECIPE = {
  student: { model: "teacher", layers: [0] },
  objective: [{ loss: "cross-entropy" }, { loss: "taid", weight: 0.5, options: { adaptive: true } }],
  adapter: { type: "adalora", rank: 2, targets: ["q_proj"] },
  train: { steps: 4, checkpointEvery: 2 },
};
const EARLIER = new URL("fixtures/earlier_checkpoint/step-000002", import.meta.url).pathname;

Deno.test("a checkpoint of an earlier version is read, its plan followed, and written again byte for byte", () =>
  withTiny(async (files) => {
    using setup = await tinySetup(tinyRecipe(files, RECIPE));
    const { flat, state } = await readCheckpoint(EARLIER, setup.trainables);
    const scores = setup.trainables.states.gather(flat.states).get("shared.scores")!;
    assertEquals(scores.length, 64);
    assertEquals(state.step, 2);
    const choices = { tokens: 64, chunkRows: 64, recompute: false, family: "subgroup8" as const };
    assertEquals(state.frozen, choices);
    const device = { ...DEFAULT_DEVICE, family: choices.family, subgroupSize: 8 };
    // From now on it says the names of the kernels too, which were those that stand first.
    const { kernels, ...followed } = planTraining(setup, device, { choices: state.frozen }).choices;
    assertEquals(followed, choices);
    const { kernels: _names, ...first } =
      planTraining(setup, device, { choices: { ...choices, kernels } }).choices;
    assertEquals([first, _names], [choices, kernels]);
    const { format: _, ...rest } = state;
    const path = await writeCheckpoint(`${files.folder}/checkpoints`, setup.trainables, flat, rest);
    for (const name of ["state.safetensors", "state.json", "manifest.json"]) {
      assertEquals(await Deno.readFile(`${path}/${name}`), await Deno.readFile(`${EARLIER}/${name}`), name);
    }
  }));
