/** Runs that are killed, stopped, damaged or changed. */
// @ts-types="../../types/std_assert.d.ts"
import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertGreater,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import {
  listCheckpoints,
  pruneCheckpoints,
  verifyCheckpoint,
} from "../../src/distill/checkpoint/checkpoint.ts";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import { Model } from "../../src/distill/inputs/models.ts";
import { type Recipe } from "../../src/distill/recipe/recipe.ts";
import { recipeHash } from "../../src/distill/recipe/parse.ts";
import { distillationOf } from "../../src/runs/task/run_recipe.ts";
import { parseRecipe } from "../../src/distill/recipe/parse.ts";
import { DivergedError, InputError } from "../../src/base/errors.ts";
import { scanNonFinite } from "../../src/formats/dtype.ts";
import { openFile } from "../../src/formats/files.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import { createRun, openRun } from "../../src/runs/store/run_folder.ts";
import { CONTRACT_VERSION, defineDivergence, noOptions } from "../../src/registry/contract.ts";
import { heldMetrics, runHere, storedMetrics, watchRun } from "./tiny_run.ts";
import { type TinyFiles, tinyRecipe, tinyRows, withTiny, writeTinyModel } from "./tiny_model.ts";
import { testStore } from "../runs/test_store.ts";

/** Steps of the runs that are killed. */
const STEPS = 24;

/** Everything that must be the same, byte for byte, however often a run was interrupted. */
async function remains(folder: string) {
  const names = [
    "adapter/adapter_model.safetensors",
    `checkpoints/step-${String(STEPS).padStart(6, "0")}/state.safetensors`,
    "merged/model.safetensors",
  ];
  const files = await Promise.all(
    names.map(async (name) => [name, await sha256(`${folder}/${name}`)] as const),
  );
  return { files, checkpoints: namesIn(`${folder}/checkpoints`), metrics: await storedMetrics(folder) };
}

function namesIn(folder: string): string[] {
  return [...Deno.readDirSync(folder)].map((entry) => entry.name).sort();
}

async function sha256(path: string): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await Deno.readFile(path)));
  return Array.from(digest, (b) => b.toString(16).padStart(2, "0")).join("");
}

/**
 * Everything that has a state of its own: dropout, accumulation, epochs, moments, warm-up, the guard against divergence, a loss's
 * controller; and courses of a temperature and of a loss's option, which have none.
 */
const fullRecipe = (files: TinyFiles): Recipe =>
  tinyRecipe(files, {
    student: { model: "teacher", layers: [1] },
    objective: [
      { loss: "cross-entropy", weight: 0.5 },
      {
        loss: "forward-kl",
        weight: 0.3,
        squareTemperature: true,
        schedule: { temperature: { from: 3, to: 1, steps: [2, 18], shape: "cosine" } },
      },
      { loss: "skew-kl", weight: 0.1, schedule: { lambda: { from: 0.1, to: 0.5, steps: [0, STEPS] } } },
      { loss: "taid", weight: 0.2, options: { adaptive: true, alpha: 0.1, beta: 0.8 } },
    ],
    adapter: { dropout: 0.2, loraPlusRatio: 2 },
    train: {
      steps: STEPS,
      accumulation: 2,
      schedule: "cosine",
      warmup: 4,
      checkpointEvery: 4,
      evaluateEvery: 10,
      divergence: { window: 5 },
    },
    samples: { tokens: 3 },
  });

Deno.test("an interrupted run leaves what an uninterrupted one leaves, bit for bit", async (t) => {
  await withTiny(async (files) => {
    const recipe = fullRecipe(files);
    const start = () => createRun({ recipe, store: testStore(files.folder) });
    const whole = await start();
    const reference = watchRun(whole);
    assertEquals((await reference.outcome).error?.message, undefined);
    const expected = await remains(whole.folder);
    assertEquals(expected.metrics.filter((row) => row.type === "metrics").length, STEPS);

    await t.step("killed with SIGKILL at random steps, twice in a row", async () => {
      const seed = Number(Deno.env.get("LIMBECK_TEST_SEED") ?? crypto.getRandomValues(new Uint32Array(1))[0]);
      // It chooses steps and waits; where exactly a kill falls is up to the clock.
      console.log(`LIMBECK_TEST_SEED=${seed}`);
      let state = seed;
      const random = (below: number) => {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        return Math.floor(state / 2 ** 32 * below);
      };
      const { folder, ...first } = await start();
      let run = { folder, ...first };
      let kills = 0;
      for (let attempt = 0; attempt <= 2; attempt++) {
        // The first kill may come before there is a checkpoint.
        const [from, wait] = [1 + random(8) + 8 * attempt, random(60)];
        const watched = watchRun(run, {
          resume: attempt > 0,
          onEvent(event, supervised) {
            if (attempt === 2 || event.type !== "metrics" || event.step < from) return;
            setTimeout(() => supervised.kill(), wait);
          },
        });
        const outcome = await watched.outcome;
        if (outcome.state === "succeeded") break;
        assertEquals([outcome.state, outcome.error?.message], ["interrupted", undefined]);
        kills++;
        run = await openRun(folder, testStore(files.folder));
      }
      run.release();
      assertGreater(kills, 0);
      assertEquals(await remains(folder), expected, `after ${kills} kills with seed ${seed}`);
      assertEquals(namesIn(folder).filter((name) => name.startsWith(".")), []);
    });

    await t.step("stopped and resumed", async () => {
      const run = await start();
      const stopped = await watchRun(run, {
        onEvent: (event, supervised) => {
          if (event.type === "metrics" && event.step === 12) supervised.request("stop");
        },
      }).outcome;
      assertEquals([stopped.state, stopped.exitCode], ["paused", 130]);
      assert(stopped.result!.steps < STEPS);
      const resumed = await watchRun(await openRun(run.folder, run.store), { resume: true }).outcome;
      assertEquals([resumed.state, resumed.result?.steps], ["succeeded", STEPS]);
      const { checkpoints: _, ...rest } = await remains(run.folder);
      const { checkpoints: __, ...wanted } = expected;
      assertEquals(rest, wanted);
    });
  });
});

const stopAt = (step: number) => ({
  control: (done: number) => done === step ? "stop" as const : "run" as const,
});

/** A few steps, all in this process. */
const shortRecipe = (files: TinyFiles, train = {}): Recipe =>
  tinyRecipe(files, {
    train: { steps: 8, checkpointEvery: 2, evaluateEvery: 0, ...train },
    output: { merged: false },
  });

async function flipByte(path: string, at: number): Promise<void> {
  const bytes = await Deno.readFile(path);
  bytes[at < 0 ? bytes.length + at : at]! ^= 1;
  await Deno.writeFile(path, bytes);
}

Deno.test("a damaged newest checkpoint is passed over with a warning, and counts no longer", () =>
  withTiny(async (files) => {
    const recipe = shortRecipe(files);
    const [whole, folder] = [`${files.folder}/whole`, `${files.folder}/run`];
    const expected: RunEventBody[] = [];
    await runHere(recipe, whole, {}, expected);

    const events: RunEventBody[] = [];
    assertEquals((await runHere(recipe, folder, stopAt(5), events)).status, "paused");
    const checkpoints = `${folder}/checkpoints`;
    assertEquals(namesIn(checkpoints), ["step-000004", "step-000005"]);
    await flipByte(`${checkpoints}/step-000005/state.safetensors`, -1);

    const first = events.length;
    const paused = await runHere(recipe, folder, { resume: true, ...stopAt(2) }, events);
    assertEquals(paused.steps, 6);
    const said = events.slice(first);
    const warning = said.find((event) => event.type === "warning");
    assert(warning?.type === "warning" && warning.code === "damaged_checkpoint");
    assert(/step-000005: state.safetensors is not the file/.test(warning.message), warning.message);
    assertEquals(said.find((event) => event.type === "rewind"), { type: "rewind", step: 4 });
    // Were the damaged one still among the latest two, step 4 would be gone.
    assertEquals(namesIn(checkpoints), ["step-000004", "step-000006"]);

    assertEquals((await runHere(recipe, folder, { resume: true }, events)).steps, 8);
    assertEquals(heldMetrics(events), heldMetrics(expected));
    const adapter = "adapter/adapter_model.safetensors";
    assertEquals(await sha256(`${folder}/${adapter}`), await sha256(`${whole}/${adapter}`));
  }));

Deno.test("verifyCheckpoint() finds a flipped byte in any file, and a file that is missing", () =>
  withTiny(async (files) => {
    await runHere(shortRecipe(files, { steps: 2 }), `${files.folder}/run`);
    const { path } = (await listCheckpoints(`${files.folder}/run/checkpoints`))[0]!;
    await verifyCheckpoint(path);
    for (const name of ["state.safetensors", "state.json"]) {
      const { size } = await Deno.stat(`${path}/${name}`);
      for (const at of [0, size >> 1, size - 1]) {
        await flipByte(`${path}/${name}`, at);
        await assertRejects(() => verifyCheckpoint(path), InputError, `${name} is not the file`);
        await flipByte(`${path}/${name}`, at);
      }
    }
    await verifyCheckpoint(path);
    for (const name of ["state.json", "manifest.json"]) {
      await Deno.rename(`${path}/${name}`, `${path}/away`);
      await assertRejects(() => verifyCheckpoint(path), InputError, name);
      await Deno.rename(`${path}/away`, `${path}/${name}`);
    }
  }));

Deno.test("pruneCheckpoints() keeps the latest and the best", () =>
  withTiny(async ({ folder }) => {
    const left = async (keep: number, best: number | undefined) => {
      for (const step of [10, 20, 30, 40]) {
        await Deno.mkdir(`${folder}/c/step-${`${step}`.padStart(6, "0")}`, { recursive: true });
      }
      await Deno.mkdir(`${folder}/c/.step-000050.01234567.tmp`, { recursive: true });
      await pruneCheckpoints(`${folder}/c`, keep, best);
      return (await listCheckpoints(`${folder}/c`)).map(({ step }) => step);
    };
    assertEquals(await left(2, undefined), [30, 40]);
    assertEquals(await left(2, 10), [10, 30, 40]);
    assertEquals(await left(1, 40), [40]);
    assertEquals(await left(9, 20), [10, 20, 30, 40]);
  }));

Deno.test("a checkpoint holds the plan's choices that the run was made with", () =>
  withTiny(async ({ folder, ...files }) => {
    for (const activationCheckpointing of ["on", "off"] as const) {
      const run = `${folder}/${activationCheckpointing}`;
      const train = { steps: 1, activationCheckpointing, headChunk: 64 };
      await runHere(tinyRecipe({ folder, ...files }, { train }), run);
      const state = JSON.parse(await Deno.readTextFile(`${run}/checkpoints/step-000001/state.json`));
      assertEquals([state.frozen.recompute, state.frozen.chunkRows], [activationCheckpointing === "on", 64]);
    }
  }));

Deno.test("a run keeps the checkpoint with the lowest held-out loss when later ones are worse", () =>
  withTiny(async (files) => {
    // A held-out file that contradicts the training file: more training makes it worse.
    await Deno.writeTextFile(
      files.train,
      Array.from({ length: 20 }, () => '{"text":"aaaa aaaa"}\n').join(""),
    );
    const recipe = {
      ...shortRecipe(files, { steps: 10, evaluateEvery: 2, learningRate: 0.05 }),
      objective: [{ loss: "cross-entropy", weight: 1, temperature: 1, options: {} }],
    };
    const events: RunEventBody[] = [];
    await runHere(recipe, `${files.folder}/run`, {}, events);
    const losses = events.flatMap((event) =>
      event.type === "evaluation" && event.model === "student" && event.step > 0 ? [event] : []
    ).sort((a, b) => a.loss! - b.loss!);
    const best = losses[0]!.step;
    assert(best < 8, `best at step ${best}`);
    const kept = (await listCheckpoints(`${files.folder}/run/checkpoints`)).map(({ step }) => step);
    assertEquals(kept, [best, 8, 10]);
    assertEquals(events.findLast((event) => event.type === "checkpoint" && event.best), {
      type: "checkpoint",
      step: best,
      path: `checkpoints/step-${`${best}`.padStart(6, "0")}`,
      best: true,
    });
  }, { seed: 2 }));

Deno.test("a run is not resumed on another recipe, model, dataset or plugin", () =>
  withTiny(async (files) => {
    /** A divergence whose text stays the same while what it computes does not. */
    const scaled = (factor: number) =>
      defineDivergence({
        id: "test/scaled",
        version: "1.0.0",
        contract: CONTRACT_VERSION,
        description: "for this test",
        source: "none",
        options: noOptions,
        term: ({ p, logP, logQ }) => p.mul(logP.sub(logQ)).mul(factor),
      });
    await writeTinyModel(`${files.folder}/student`, { layers: 1, seed: 2 });
    const recipe: Recipe = {
      ...shortRecipe(files),
      student: { model: `${files.folder}/student` },
      objective: [{ loss: "test/scaled", weight: 1, temperature: 1, options: {} }],
    };
    const folder = `${files.folder}/run`;
    await runHere(recipe, folder, { ...stopAt(2), plugins: [scaled(1)] });
    const refused = (changed: string, other = recipe, plugin = scaled(1)) =>
      assertRejects(
        () => runHere(other, folder, { resume: true, plugins: [plugin] }),
        InputError,
        `changed since the checkpoint: ${changed}`,
      );

    await refused("recipe", { ...recipe, train: { ...recipe.train, weightDecay: 0.5 } });
    await refused("loss test/scaled", recipe, scaled(2));
    const changes: [file: string, changed: string][] = [
      ["teacher/model.safetensors", "teacher"],
      ["student/model.safetensors", "student"],
    ];
    for (const [file, changed] of changes) {
      await flipByte(`${files.folder}/${file}`, -2);
      await refused(changed);
      await flipByte(`${files.folder}/${file}`, -2);
    }
    const config = `${files.teacher}/config.json`;
    const text = await Deno.readTextFile(config);
    await Deno.writeTextFile(config, text.replace('"rope_theta": 10000', '"rope_theta": 20000'));
    await refused("teacher");
    await Deno.writeTextFile(config, text);
    for (
      const [file, changed] of [[files.train, "training data"], [files.heldOut, "held-out data"]] as const
    ) {
      const rows = await Deno.readTextFile(file);
      await Deno.writeTextFile(file, rows + tinyRows(1, 99));
      await refused(changed);
      await Deno.writeTextFile(file, rows);
    }
    // With everything as it was, it goes on; limits and output may change.
    const limits = { ...recipe.limits, watchdogSeconds: 77 };
    const result = await runHere({ ...recipe, limits }, folder, { resume: true, plugins: [scaled(1)] });
    assertEquals([result.status, result.steps], ["succeeded", 8]);
  }));

Deno.test("openRun() refuses a recipe that was edited in the run's folder", () =>
  withTiny(async (files) => {
    const run = await createRun({ recipe: shortRecipe(files), store: testStore(files.folder) });
    run.release();
    const path = `${run.folder}/recipe.json`;
    const text = await Deno.readTextFile(path);
    await Deno.writeTextFile(path, text.replace('"steps": 8', '"steps": 9'));
    await assertRejects(
      () => openRun(run.folder, run.store),
      InputError,
      "the recipe was changed after the run began",
    );
    await Deno.writeTextFile(path, text);
    const again = await openRun(run.folder, run.store);
    again.release();
    assertEquals(recipeHash(distillationOf(again.recipe)), recipeHash(parseRecipe(JSON.parse(text))));
  }));

/** Every number of a run's newest checkpoint is finite. */
async function assertUsable(folder: string): Promise<void> {
  const { path, step } = (await listCheckpoints(`${folder}/checkpoints`)).at(-1)!;
  assertGreater(step, 0);
  await verifyCheckpoint(path);
  const file = await SafetensorsFile.open(await openFile(`${path}/state.safetensors`));
  for (const name of file.tensors.keys()) {
    assertEquals(scanNonFinite("f32", (await file.read(name)).data), undefined, `${name} of step ${step}`);
  }
  file.close();
}

/** A learning rate that no model survives, with a checkpoint at every step. */
const divergingRecipe = (files: TinyFiles, train = {}): Recipe =>
  shortRecipe(files, {
    steps: 60,
    learningRate: 1e3,
    warmup: 1,
    checkpointEvery: 1,
    divergence: { window: 3 },
    ...train,
  });

Deno.test("a run that diverges ends with exit code 5 and a checkpoint that can be used", () =>
  withTiny(async (files) => {
    const run = await createRun({ recipe: divergingRecipe(files), store: testStore(files.folder) });
    const outcome = await watchRun(run).outcome;
    assertEquals([outcome.state, outcome.exitCode, outcome.error?.code], ["failed", 5, "diverged"]);
    assertMatch(outcome.error!.message, /of step \d+ is not a finite number/);
    assertStringIncludes(outcome.error!.hint!, "learningRate");
    await assertUsable(run.folder);
  }));

Deno.test("a run whose loss runs away ends, and the checkpoint before can be used", () =>
  withTiny(async (files) => {
    const recipe = divergingRecipe(files, {
      learningRate: 3,
      warmup: 30,
      divergence: { window: 3, maxLossFactor: 1.1 },
    });
    const events: RunEventBody[] = [];
    const error = await assertRejects(
      () => runHere(recipe, `${files.folder}/run`, {}, events),
      DivergedError,
    );
    const [, first, last, mean, factor] =
      /^the mean loss of steps (\d+) to (\d+) is ([\d.]+), ([\d.]+) times the lowest/.exec(error.message)!
        .map(Number);
    const losses = events.flatMap((event) => event.type === "metrics" ? [event.loss!] : []);
    assertEquals([losses.length, last! - first!], [last, 2]);
    const means = Array.from(
      { length: last! / 3 },
      (_, i) => losses.slice(3 * i, 3 * i + 3).reduce((a, b) => a + b) / 3,
    );
    assertAlmostEquals(means.at(-1)!, mean!, 1e-4);
    assertAlmostEquals(means.at(-1)! / Math.min(...means), factor!, 0.051);
    await assertUsable(`${files.folder}/run`);
  }));

Deno.test("a gradient that overflows ends a run before anything infinite is saved", () =>
  withTiny(async (files) => {
    const recipe = divergingRecipe(files, { clip: 0, divergence: { maxLossFactor: 0 } });
    const error = await assertRejects(() => runHere(recipe, `${files.folder}/run`), DivergedError);
    assertMatch(error.message, /^the gradient of step \d+ is not a finite number/);
    await assertUsable(`${files.folder}/run`);
  }));

Deno.test("NaN among the weights is refused with the tensor's name", () =>
  withTiny(async (files) => {
    const path = `${files.teacher}/model.safetensors`;
    const name = "model.layers.1.mlp.up_proj.weight";
    const bytes = await Deno.readFile(path);
    const headerBytes = Number(new DataView(bytes.buffer).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + headerBytes)));
    new DataView(bytes.buffer).setFloat32(8 + headerBytes + header[name].data_offsets[0] + 4 * 71, NaN, true);
    await Deno.writeFile(path, bytes);
    const message = `1 values of tensor ${name} (the first at 71) are not finite numbers`;
    await assertRejects(() => runHere(shortRecipe(files), `${files.folder}/run`), InputError, message);
    // Large tensors are read in pieces of rows; the place is still that in the whole.
    const model = await Model.open(files.teacher, { category: "weights" });
    await model.read(name, 0, 2);
    await assertRejects(() => model.read(name, 2, 2), InputError, message);
    model.close();
  }));
