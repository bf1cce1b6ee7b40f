// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { readSeeds, runComparison } from "../../src/cli/verbs/compare.ts";
import { FlagReader, type Flags } from "../../src/cli/command.ts";
import { tableLines } from "../../src/cli/verbs/comparison_table.ts";
import { main } from "../../src/cli/main.ts";
import { Output } from "../../src/cli/terminal/output.ts";
import { LimbeckError, UsageError } from "../../src/base/errors.ts";
import { createComparison, plannedRuns, recipeNames } from "../../src/runs/compare/comparison.ts";
import { readEvents } from "../../src/runs/store/event_log.ts";
import { meanLoss, type MeasuredSet } from "../../src/runs/compare/sequences.ts";
import type { SetVerdict } from "../../src/runs/compare/verdicts.ts";
import { type TinyFiles, tinyRows, withTiny, writeTinyModel } from "../distill/tiny_model.ts";
import { fakeEntry, fakeRecipe, withFolder } from "../runs/fake_run.ts";
import type { Fault } from "../runs/fake_trainer.ts";
import { fakeTerminal } from "./fake_terminal.ts";
import { testStore } from "../runs/test_store.ts";

Deno.test("--seeds is a count from 1 or a list of different seeds", () => {
  const read = (seeds?: string) => readSeeds(new FlagReader(seeds === undefined ? {} : { seeds }));
  assertEquals([read(), read("1"), read("2"), read("11,12, 5")], [[1, 2, 3], [1], [1, 2], [11, 12, 5]]);
  assertEquals(read("0,7"), [0, 7]);
  for (const wrong of ["0", "-1", "1.5", "a", "1,1", "1,,2", "3,4294967296", "1001"]) {
    let refused = false;
    try {
      read(wrong);
    } catch (error) {
      refused = error instanceof UsageError;
    }
    assert(refused, wrong);
  }
});

Deno.test("recipeNames() are the files' own, safe for a folder, and different", () => {
  assertEquals(recipeNames(["a/kd.yaml", "b/kd.json", "kd.yaml", "x, y.yaml", "früh.ts"]), [
    "kd",
    "kd-2",
    "kd-3",
    "x-y",
    "früh",
  ]);
});

Deno.test("tableLines() comes in several parts where it is too wide, each with the names of its rows", () => {
  const table = [["", "n", "loss", "forward KL", "top"], ["lora", "3", "2.5", "1.25", "0.5"]];
  assertEquals(tableLines(table), [["      n  loss  forward KL  top", "lora  3  2.5   1.25        0.5"]]);
  assertEquals(tableLines(table, 31).length, 1);
  const parts = tableLines(table, 25);
  assertEquals(parts, [
    ["      n  loss  forward KL", "lora  3  2.5   1.25"],
    ["      n  top", "lora  3  0.5"],
  ]);
  assertEquals(tableLines(table, 24).map(([head]) => head), ["      n  loss", "      n  forward KL  top"]);
  assertEquals(tableLines(table, 1).length, 3);
});

/** Makes a comparison of recipes for the fake trainer, with these faults by name. */
async function fakeComparison(
  folder: string,
  faults: Record<string, Fault>,
  seeds: number[],
): Promise<string> {
  const comparison = await createComparison({
    recipes: Object.entries(faults).map(([name, fault]) => ({
      name,
      file: `${name}.yaml`,
      recipe: fakeRecipe(folder, fault, 6),
    })),
    ...{ seeds, plugins: [], warnings: [], store: testStore(folder) },
  });
  comparison.release();
  return comparison.folder;
}

function resume(folder: string, json = false) {
  const terminal = fakeTerminal();
  const flags: Flags = { resume: folder, "no-setup": true };
  const invocation = { args: [], flags: new FlagReader(flags), out: new Output(terminal, json) };
  return { terminal, code: runComparison(invocation, fakeEntry) };
}

Deno.test("compare prints means with spread, and paired differences; resumed, it repeats nothing", () =>
  withFolder(async (root) => {
    const folder = await fakeComparison(root, { plain: { measures: 2 }, better: { measures: 1.75 } }, [1, 3]);
    const { terminal, code } = resume(folder);
    assertEquals(await code, 0, terminal.err);
    const lines = terminal.out.split("\n").map((line) => line.replaceAll(/ {2,}/g, "  "));
    // Losses 2.01 and 2.03; 1.76 and 1.78. Standard deviation 0.02 / sqrt(2).
    for (
      const line of [
        "  n  held-out loss  forward KL  top-1 agreement",
        "teacher  1.0000  -  -",
        "student before  3.0000  -  -",
        "plain  2  2.0200 ± 0.0141  1.0100 ± 0.0071  0.7980 ± 0.0014",
        "better  2  1.7700 ± 0.0141  0.8850 ± 0.0071  0.8230 ± 0.0014",
        "less plain  n  held-out loss  forward KL  top-1 agreement",
        "better  2  -0.2500 ± 0.0000, 2/2  -0.1250 ± 0.0000, 2/2  +0.0250 ± 0.0000, 2/2",
      ]
    ) assert(lines.includes(line), `${line}\nin\n${lines.join("\n")}`);
    assertStringIncludes(terminal.out, "seeds 1, 3");
    const markdown = await Deno.readTextFile(`${folder}/compare.md`);
    assertStringIncludes(markdown, "| better | 2 | 1.7700 ± 0.0141 |");

    const logs = async () =>
      await Promise.all(
        ["plain-seed1", "better-seed1", "plain-seed3", "better-seed3"].map((name) =>
          Deno.readTextFile(`${folder}/${name}/events.jsonl`)
        ),
      );
    const before = await logs();
    const again = resume(folder, true);
    assertEquals(await again.code, 0);
    assertEquals(await logs(), before);
    const { runs, summary: { differences, recipes } } = JSON.parse(again.terminal.out);
    assertEquals(runs.map((run: { folder: string }) => run.folder), [
      "plain-seed1",
      "better-seed1",
      "plain-seed3",
      "better-seed3",
    ]);
    assertEquals([runs[0].after["cross-entropy"], runs[0].teacher["cross-entropy"], runs[0].step], [
      2.01,
      1,
      6,
    ]);
    assertEquals(recipes[1].metrics["cross-entropy"].n, 2);
    const difference = differences[0].metrics["forward-kl"];
    assertAlmostEquals(difference.mean, -0.125, 1e-12);
    assertEquals([differences[0].to, difference.n, difference.better], ["plain", 2, 2]);
  }));

Deno.test("compare shows no spread of one seed", () =>
  withFolder(async (root) => {
    const folder = await fakeComparison(root, { plain: { measures: 2 }, better: { measures: 1.75 } }, [4]);
    const { terminal, code } = resume(folder);
    assertEquals(await code, 0);
    const table = terminal.out.slice(terminal.out.indexOf("held-out loss  forward"));
    assertEquals(table.includes("±"), false, table);
    assertStringIncludes(table, "One run shows no spread.");
    assertStringIncludes(table, "-0.2500, 1/1");
  }));

Deno.test("a failing run fails the comparison at its end, with the others shown, and is tried again", () =>
  withFolder(async (root) => {
    const faults = { plain: { measures: 2 }, broken: { throwAt: 2, measures: 1 }, better: { measures: 1.5 } };
    const folder = await fakeComparison(root, faults, [1, 2]);
    const { terminal, code } = resume(folder);
    const error = await assertRejects(() => code, LimbeckError, "broken, seed 2: the GPU was lost");
    assertEquals([error.exitCode, error.message.split("\n")[0]], [4, "2 of 6 runs failed"]);
    assertStringIncludes(terminal.out, "failed: the GPU was lost");
    assertStringIncludes(terminal.out.replaceAll(/ {2,}/g, "  "), "broken  0  -  -  -");
    assertStringIncludes(terminal.out, "-0.5000 ± 0.0000, 2/2");
    const { runs } = JSON.parse(await Deno.readTextFile(`${folder}/compare.json`));
    assertEquals(runs.map((run: { state: string }) => run.state).slice(0, 3), [
      "succeeded",
      "failed",
      "succeeded",
    ]);
    assertEquals(runs[1].error.code, "device");
    await assertRejects(() => resume(folder).code, LimbeckError, "2 of 6 runs failed");
    assertEquals((await readEvents(`${folder}/broken-seed1`)).at(-1)?.attempt, 2);
    assertEquals((await readEvents(`${folder}/plain-seed1`)).at(-1)?.attempt, 1);
  }));

Deno.test("compare refuses to resume what is no comparison, or was changed", () =>
  withFolder(async (root) => {
    await assertRejects(() => resume(`${root}/runs`).code, LimbeckError, "there is no comparison here");
    const folder = await fakeComparison(root, { plain: { measures: 2 }, better: { measures: 1.75 } }, [1]);
    await resume(folder).code;
    const file = `${folder}/compare.json`;
    const text = await Deno.readTextFile(file);
    await Deno.writeTextFile(file, text.replace('"steps": 6', '"steps": 7'));
    await assertRejects(() => resume(folder).code, LimbeckError, "made with another recipe");
    await Deno.writeTextFile(file, text.replace('"seeds"', '"sets"'));
    await assertRejects(() => resume(folder).code, LimbeckError, "is not the file of a comparison");
  }));

Deno.test("plannedRuns() does all recipes with a seed before the next seed", () => {
  const recipes = ["a", "b"].map((name) => ({ name, file: `${name}.yaml`, recipe: fakeRecipe("/none") }));
  const plan = {
    recipes,
    seeds: [5, 2],
    plugins: [],
    warnings: [],
    id: "",
    createdAt: "",
    limbeck: "",
    deno: "",
  };
  assertEquals(plannedRuns(plan).map((run) => run.folder), ["a-seed5", "b-seed5", "a-seed2", "b-seed2"]);
});

Deno.test("Ctrl-C stops the comparison with 130 and keeps what is done; --resume does the rest", () =>
  withFolder(async (root) => {
    const folder = await fakeComparison(
      root,
      { plain: { measures: 2 }, slow: { measures: 1, pace: 300 } },
      [1],
    );
    const script = new URL("./watched_comparison.ts", import.meta.url).pathname;
    const args = ["run", "-A", script, folder];
    const process = new Deno.Command(Deno.execPath(), { args, stdout: "piped" }).spawn();
    let printed = "";
    let asked = false;
    for await (const text of process.stdout.pipeThrough(new TextDecoderStream())) {
      printed += text;
      if (asked || !printed.includes("slow, seed 1: begins")) continue;
      asked = true;
      process.kill("SIGINT");
    }
    assertEquals((await process.status).code, 130, printed);
    assertStringIncludes(printed, "Stopped with 1 of 2 runs to do. `limbeck compare --resume");
    assertStringIncludes(printed, "2.0100");
    const { terminal, code } = resume(folder);
    assertEquals(await code, 0);
    assertStringIncludes(terminal.out, "plain, seed 1: done before");
    assertStringIncludes(terminal.out, "slow, seed 1: continues");
    assertStringIncludes(terminal.out, "-1.0000, 1/1");
  }));

async function limbeck(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const terminal = fakeTerminal();
  const code = await main(argv, terminal);
  return { code, out: terminal.out, err: terminal.err };
}

/** Writes recipes of a few steps: cross-entropy alone, and with forward KL. */
async function writeRecipes(files: TinyFiles): Promise<[ce: string, kd: string]> {
  const recipe = {
    teacher: { model: files.teacher },
    student: { model: "teacher", layers: [0, 2] },
    data: { train: files.train, heldOut: files.heldOut, contextLength: 64 },
    adapter: { rank: 4 },
    train: { steps: 6, tokensPerMicroBatch: 64, learningRate: 1e-2, warmup: 0 },
  };
  const objectives = {
    ce: [{ loss: "cross-entropy" }],
    kd: [{ loss: "cross-entropy", weight: 0.5 }, { loss: "reverse-kl", weight: 0.5, temperature: 2 }],
  };
  const paths: string[] = [];
  for (const [name, objective] of Object.entries(objectives)) {
    paths.push(`${files.folder}/${name}.json`);
    await Deno.writeTextFile(paths.at(-1)!, JSON.stringify({ ...recipe, objective }));
  }
  return paths as [string, string];
}

Deno.test("compare takes recipes and models or a folder, and says what is wrong before the first run", () =>
  withTiny(async (files) => {
    const [ce, kd] = await writeRecipes(files);
    const runs = `${files.folder}/runs`;
    const twice = `data.heldOut=[{path: ${files.heldOut}}, {path: ${files.heldOut}}]`;
    const [short, foreign] = [`${files.folder}/short`, `${files.folder}/foreign`];
    await writeTinyModel(short, { contextLength: 32 });
    await writeTinyModel(foreign);
    const tokenizer = await Deno.readTextFile(`${foreign}/tokenizer.json`);
    await Deno.writeTextFile(
      `${foreign}/tokenizer.json`,
      tokenizer.replace('"ca"', '"CA"').replace('["c","a"]', '["C","A"]'),
    );
    const cases: [code: number, message: string, argv: string[]][] = [
      [2, "name a second recipe, or a --model", [ce]],
      [2, "Without --no-twin, its plain fine-tuning twin", [kd, "--no-twin"]],
      [2, "--seeds must be a count or a list", [ce, kd, "--seeds", "1,1"]],
      [2, "name a recipe, the one first", ["--model", "a=x", "--model", "b=y"]],
      [2, "expected NAME=PATH", [ce, "--model", files.teacher]],
      [2, "a name has at most 64", [ce, "--model", "a b=x"]],
      [2, "something else is called ce", [ce, "--model", "ce=x"]],
      [2, "something else is called m", [ce, "--model", "m=x", "--model", "m=y"]],
      [2, "something else is called ce-seed2", [ce, "--model", "ce-seed2=x", "--seeds", "2"]],
      [2, "something else is called m-seed1", [ce, "--model", "m={seed}", "--model", "m-seed1=x"]],
      [3, `${files.folder}/m-2`, [ce, "--model", `m=${files.folder}/m-{seed}`, "--seeds", "2,3"]],
      [3, `${files.folder}/nothing`, [ce, "--model", `m=${files.folder}/nothing`]],
      [3, "trained for 32 positions, not 64", [ce, "--model", `m=${short}`]],
      [3, "another vocabulary than the recipes' teacher", [ce, "--model", `m=${foreign}`]],
      [3, "data.heldOut.1.name", [ce, kd, "--set", twice]],
      [2, "--resume takes no recipes", [ce, kd, "--resume", runs]],
      [2, "--resume takes no --seeds", ["--resume", runs, "--seeds", "5"]],
      [3, 'there is no loss "forward-lk"', [ce, kd, "--set", "objective.0.loss=forward-lk"]],
      [3, "there is no such file", [ce, `${files.folder}/none.json`]],
    ];
    for (const [code, message, argv] of cases) {
      const where = argv.includes("--resume") ? [] : ["--data", files.folder];
      const said = await limbeck("compare", ...argv, ...where);
      assertEquals(said.code, code, said.err);
      assertStringIncludes(said.err, message);
    }
    await assertRejects(() => Deno.stat(runs), Deno.errors.NotFound);
  }));

Deno.test("compare runs two recipes with two seeds on a tiny model, and measures a model beside them, on two held-out sets", () =>
  withTiny(async (files) => {
    const [ce, kd] = await writeRecipes(files);
    const unseen = `${files.folder}/unseen.jsonl`;
    await Deno.writeTextFile(unseen, tinyRows(5, 9));
    const sets = `data.heldOut=[{path: ${files.heldOut}, name: seen}, {path: ${unseen}}]`;
    const { code, out, err } = await limbeck(
      ...["compare", ce, kd, "--seeds", "2", "--data", files.folder, "--no-setup", "--json"],
      ...["--model", `whole=${files.teacher}`, "--set", sets],
    );
    assertEquals(code, 0, err);
    const all = JSON.parse(out);
    assertEquals(all.runs.length, 4);
    for (const { folder, after, before, state } of all.runs) {
      assertEquals(state, "succeeded");
      const path = `${all.folder}/${folder}`;
      const events = await readEvents(path);
      const last = events.findLast((event) => event.type === "evaluation")!;
      assert(last.type === "evaluation" && last.step === 6);
      assertEquals(after["cross-entropy"], last.loss);
      assertEquals(after["expected-calibration-error"], last.losses["expected-calibration-error"]);
      assertEquals(events.filter((event) => event.type === "sample"), []);
      await assertRejects(() => Deno.stat(`${path}/merged`), Deno.errors.NotFound);
      // Adapters begin as no change, so every run begins at one place.
      assertAlmostEquals(before["cross-entropy"], all.runs[0].before["cross-entropy"], 1e-6);
    }
    const losses = (name: string) =>
      all.runs.filter((run: { recipe: string }) => run.recipe === name).map((
        run: { after: Record<string, number> },
      ) => run.after["reverse-kl"]!);
    const [a, b] = [losses("ce"), losses("kd")];
    assert(a[0] !== a[1], "seeds change nothing");
    const { mean, n } = all.summary.differences[0].metrics["reverse-kl"];
    assertAlmostEquals(mean, (b[0]! - a[0]! + b[1]! - a[1]!) / 2, 1e-9);
    assertEquals(n, 2);

    // Each set has its column; what was measured sequence by sequence comes to the same.
    const { summary } = all;
    assertEquals(summary.sets, ["seen", "unseen"]);
    const sequences = async (name: string) =>
      JSON.parse(await Deno.readTextFile(`${all.folder}/sequences/${name}.json`)).sets as MeasuredSet[];
    for (const { folder, after } of all.runs) {
      const [seen, other] = await sequences(folder);
      assertEquals([seen!.name, seen!.losses.length, other!.losses.length], ["seen", 6, 5]);
      assertAlmostEquals(meanLoss(seen!)!, after["cross-entropy"], 1e-5);
      assertAlmostEquals(meanLoss(seen!)!, after["seen: cross-entropy"], 1e-5);
      assertAlmostEquals(meanLoss(other!)!, after["unseen: cross-entropy"], 1e-5);
      assert(after["cross-entropy"] !== after["unseen: cross-entropy"]);
    }
    // The model beside them is the teacher itself.
    for (const key of ["cross-entropy", "seen: cross-entropy", "unseen: cross-entropy"]) {
      assertAlmostEquals(summary.models[0].metrics[key], summary.teacher[key], 1e-5);
    }
    assertEquals(summary.verdicts.map((verdict: SetVerdict) => verdict.set), ["seen", "unseen"]);
    for (const { best, others } of summary.verdicts as SetVerdict[]) {
      assertEquals([best, ...others.map(({ other }) => other)].sort(), ["ce", "kd", "whole"]);
      for (const { other, runs } of others) assertEquals(runs, 2, other);
    }
    const markdown = await Deno.readTextFile(`${all.folder}/compare.md`);
    assertStringIncludes(markdown, "| loss, seen | loss, unseen | forward KL, seen |");
    assertStringIncludes(markdown, "| held-out set | lowest loss | against | difference |");
    assertStringIncludes(markdown, `Models: whole (${files.teacher})`);

    // What is gone is done again, with the same numbers to the last bit.
    await Deno.remove(`${all.folder}/kd-seed2`, { recursive: true });
    const log = await Deno.readTextFile(`${all.folder}/ce-seed1/events.jsonl`);
    const again = await limbeck("compare", "--resume", all.folder, "--no-setup", "--json");
    assertEquals(again.code, 0, again.err);
    assertEquals(JSON.parse(again.out).summary, all.summary);
    assertEquals(await Deno.readTextFile(`${all.folder}/ce-seed1/events.jsonl`), log);

    // Models of each seed come beside it later, are paired with the runs, and are measured again where they are named again.
    const add = async (folder: string) => {
      const given = ["--model", `each=${files.folder}/${folder}-{seed}`, "--no-setup", "--json"];
      const { code, out, err } = await limbeck("compare", "--resume", all.folder, ...given);
      assertEquals(code, 0, err);
      return JSON.parse(out).summary;
    };
    for (const [i, name] of ["a-1", "a-2", "b-1", "b-2"].entries()) {
      await writeTinyModel(`${files.folder}/${name}`, { seed: 20 + i });
    }
    const [a1, b1] = [await add("a"), await add("b")];
    for (const summary of [a1, b1]) {
      const [whole, each] = summary.models;
      assertEquals([whole.n, each.model, each.n, summary.models.length], [undefined, "each", 2, 2]);
      const losses = await Promise.all(
        [1, 2].map(async (seed) => meanLoss((await sequences(`each-seed${seed}`))[0]!)!),
      );
      if (summary === a1) continue;
      assertAlmostEquals(each.metrics["cross-entropy"], (losses[0]! + losses[1]!) / 2, 1e-9);
      const { recipe, to, n, metrics } = summary.differences.at(-1);
      assertEquals([recipe, to, n, Object.keys(metrics).length], ["each", "ce", 2, 3]);
      const after = (seed: number) =>
        all.runs.find((run: { recipe: string; seed: number }) => run.recipe === "ce" && run.seed === seed)
          .after;
      const differences = [1, 2].map((seed) => losses[seed - 1]! - after(seed)["cross-entropy"]);
      assertAlmostEquals(metrics["cross-entropy"].mean, (differences[0]! + differences[1]!) / 2, 1e-9);
      assertAlmostEquals(
        metrics["cross-entropy"].standardError,
        Math.abs(differences[0]! - differences[1]!) / 2,
        1e-9,
      );
      for (const { best, others } of summary.verdicts as SetVerdict[]) {
        const verdict = others.find(({ other }) => other === "each");
        assert(best === "each" || verdict!.runs === 2 && verdict!.overSeeds !== null);
      }
    }
    assert(
      a1.models[1].metrics["cross-entropy"] !== b1.models[1].metrics["cross-entropy"],
      "not measured again",
    );
    assertStringIncludes(await Deno.readTextFile(`${all.folder}/compare.md`), "| each | 2 | ");
  }));

Deno.test("a recipe is compared with its plain fine-tuning twin, on tasks too, and a page shows it", () =>
  withTiny(async (files) => {
    const [, kd] = await writeRecipes(files);
    const texts = `${files.folder}/texts.jsonl`;
    const rows = tinyRows(9, 4).split("\n").filter((line) => line.includes('"text"'));
    await Deno.writeTextFile(texts, rows.join("\n"));
    const { code, out, err } = await limbeck(
      ...["compare", kd, "--seeds", "1", "--set", "train.steps=2", "--task", `agreement=${texts}`],
      ...["--data", files.folder, "--no-setup", "--json"],
    );
    assertEquals(code, 0, err);
    const { folder, summary, runs } = JSON.parse(out);
    assertEquals(runs.map((run: { folder: string }) => run.folder), [
      ...["kd-seed1", "fine-tuning-seed1"],
    ]);
    const twin = JSON.parse(await Deno.readTextFile(`${folder}/fine-tuning-seed1/recipe.json`));
    assertEquals(twin.objective.map(({ loss }: { loss: string }) => loss), ["cross-entropy"]);
    assertEquals([twin.train.seed, twin.evaluate], [1, undefined]);
    const [task] = summary.tasks;
    assertEquals([task.name, task.items, task.unit], ["texts-agreement", 6, "texts"]);
    const [kl] = task.figures;
    assertEquals(Object.keys(kl.values), ["kd", "fine-tuning", "student before", "teacher"]);
    assertEquals([kl.values.kd.n, kl.values.teacher.n, kl.values.teacher.mean < 1e-6], [1, 1, true]);
    const [{ other, runs: pairs, overItems, overSeeds }] = kl.differences;
    assertEquals([other, pairs, overItems.items, overSeeds], ["fine-tuning", 1, 6, null]);
    assertAlmostEquals(overItems.difference, kl.values["fine-tuning"].mean - kl.values.kd.mean, 1e-9);
    for (const { p } of summary.verdicts[0].others) assert(p >= 0 && p <= 1);
    const page = await Deno.readTextFile(`${folder}/compare.html`);
    for (const part of ["others less kd", "95 % over items", "<svg", "fine-tuning"]) {
      assertStringIncludes(page, part);
    }
    assertEquals(/<script|https?:/.test(page), false);
    // What was measured on tasks is not measured again.
    const again = await limbeck("compare", "--resume", folder, "--no-setup");
    assertEquals(again.code, 0, again.err);
    assertEquals(/[Mm]easuring/.test(again.out), false, again.out);
    assertEquals(JSON.parse(await Deno.readTextFile(`${folder}/compare.json`)).summary, summary);
  }));

Deno.test("one recipe with a plugin's adapter beside a model; what was not measured is, also when it is resumed", () =>
  withTiny(async (files) => {
    const [ce] = await writeRecipes(files);
    const plugin = new URL("../../examples/plugins/row-and-column.ts", import.meta.url).pathname;
    const { code, out, err } = await limbeck(
      ...["compare", ce, "--seeds", "1", "--plugin", plugin, "--model", `whole=${files.teacher}`],
      ...["--set", "adapter={type: example/row-and-column}", "--set", "train.steps=2"],
      ...["--data", files.folder, "--no-setup", "--json"],
    );
    assertEquals(code, 0, err);
    const { folder, summary } = JSON.parse(out);
    const [{ others }] = summary.verdicts;
    assertEquals([others.length, others[0].runs, others[0].sequences, others[0].overSeeds], [1, 1, 6, null]);
    await Deno.remove(`${folder}/sequences`, { recursive: true });
    const again = await limbeck("compare", "--resume", folder, "--no-setup");
    assertEquals(again.code, 0, again.err);
    assertStringIncludes(again.out, "Measuring ce-seed1 sequence by sequence");
    assertStringIncludes(again.out, "with one pair of runs, nothing is said of other seeds");
    assertEquals(JSON.parse(await Deno.readTextFile(`${folder}/compare.json`)).summary, summary);
  }));
