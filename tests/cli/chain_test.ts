/** `limbeck chain` as users call it: steps in order, each once, each named by what goes into it. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { main } from "../../src/cli/main.ts";
import { writeTinyModel } from "../distill/tiny_model.ts";
import { namesIn, valuesOf, withModels } from "../merge/tiny_merge.ts";
import { fakeTerminal } from "./fake_terminal.ts";

const MODELS = { base: {}, a: { seed: 2 }, b: { seed: 3 } };

const STEPS = [
  {
    name: "both",
    task: "merge",
    method: "linear",
    models: [{ model: "a", weight: 1 }, { model: "b", weight: 1 }],
  },
  { name: "added", task: "residual", base: "base", instruct: "step:both", newBase: "a" },
];

async function limbeck(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const terminal = fakeTerminal();
  const code = await main(argv, terminal);
  return { code, out: terminal.out, err: terminal.err };
}

async function write(folder: string, steps: readonly unknown[]): Promise<string> {
  const path = `${folder}/chain.json`;
  await Deno.writeTextFile(path, JSON.stringify({ steps }));
  return path;
}

const chain = (folder: string, ...flags: string[]) =>
  limbeck("chain", `${folder}/chain.json`, "--data", `${folder}/data`, ...flags);

const runsIn = (folder: string) => namesIn(`${folder}/data/chains`);

Deno.test("a chain does its steps in order, and none of them twice", () =>
  withModels(MODELS, async (f) => {
    await write(f, STEPS);
    const planned = JSON.parse((await chain(f, "--dry-run", "--json")).out);
    assertEquals(planned.steps.map(({ name, done }: { name: string; done: boolean }) => [name, done]), [
      ["both", false],
      ["added", false],
    ]);
    const first = await chain(f);
    assertEquals(first.code, 0, first.err);
    assertEquals(
      runsIn(f),
      planned.steps.map(({ folder }: { folder: string }) => folder.split("/").at(-1)).sort(),
    );
    const [added] = runsIn(f);
    const [a, both, base, result] = await Promise.all(
      [`${f}/a`, `${f}/data/chains/${runsIn(f)[1]}/merged`, `${f}/base`, `${f}/data/chains/${added}/merged`]
        .map(valuesOf),
    );
    for (const [name, values] of result!) {
      const expected = a!.get(name)![3]! + both!.get(name)![3]! - base!.get(name)![3]!;
      assert(Math.abs(values[3]! - expected) < 1e-6, name);
    }
    const again = await chain(f);
    assertEquals(again.code, 0, again.err);
    assertStringIncludes(again.out, "[1/2] both: done before");
    assertStringIncludes(again.out, "[2/2] added: done before");
    assertEquals(runsIn(f).length, 2);
  }));

Deno.test("a step is another one when its options, its inputs or those of earlier steps change, and only then", () =>
  withModels(MODELS, async (f) => {
    const hashes = async (steps: readonly unknown[]): Promise<string[]> => {
      await write(f, steps);
      const { out, err } = await chain(f, "--dry-run", "--json");
      assertEquals(err, "");
      return JSON.parse(out).steps.map(({ hash }: { hash: string }) => hash);
    };
    const [both, added] = STEPS;
    const before = await hashes(STEPS);
    assertEquals(
      await hashes([{ ...both!, models: [...both!.models!].map((m) => ({ ...m })) }, added]),
      before,
    );
    const renamed = await hashes([{ ...both!, name: "x" }, { ...added!, instruct: "step:x" }]);
    assertEquals(renamed, before, "names decide nothing");
    const other = await hashes([{ ...both!, method: "karcher" }, added]);
    assert(other[0] !== before[0] && other[1] !== before[1], "an option of an earlier step");
    const scaled = await hashes([both, { ...added!, scale: 2 }]);
    assert(scaled[0] === before[0] && scaled[1] !== before[1], "an option");
    await Deno.writeTextFile(`${f}/b/README.md`, "for people");
    assertEquals(await hashes(STEPS), before, "what is for people to read");
    await Deno.rename(`${f}/b`, `${f}/c`);
    const moved = [{ ...both!, models: [{ model: "a", weight: 1 }, { model: "c", weight: 1 }] }, added];
    assertEquals(await hashes(moved), before, "where a model lies");
    await Deno.remove(`${f}/c`, { recursive: true });
    await writeTinyModel(`${f}/c`, { layers: 2, hiddenSize: 16, seed: 9 });
    const changed = await hashes(moved);
    assert(changed[0] !== before[0] && changed[1] !== before[1], "what a model holds");
  }));

Deno.test("everything that is wrong with a chain is told before work begins", () =>
  withModels(MODELS, async (f) => {
    const [both, added] = STEPS;
    const refused = async (steps: unknown, ...texts: string[]) => {
      await Deno.writeTextFile(`${f}/chain.json`, JSON.stringify(steps));
      const { code, err } = await chain(f);
      assertEquals(code, 3, err);
      for (const text of texts) assertStringIncludes(err, text);
    };
    await refused({ steps: [] }, "steps: must be a list of steps");
    await refused({ steps: [both], step: 1 }, "step: there is no such field");
    await refused({ steps: [both, both] }, 'steps.1.name: "both" is the name of an earlier step too');
    await refused(
      { steps: [{ ...both, task: "merg" }] },
      "steps.0.task: must be one of",
      'did you mean "merge"',
    );
    await refused(
      { steps: [{ ...both, name: "a/b" }, "x"] },
      "steps.0.name: must be",
      "steps.1: must be an object",
    );
    await refused(
      { steps: [both, { ...added, instruct: "step:bth" }] },
      'steps.1.instruct: there is no step "bth"; did you mean "both"',
    );
    await refused({ steps: [added, both] }, 'steps.0.instruct: step "both" does not come before this one');
    await refused(
      { steps: [{ ...added, instruct: "step:added" }] },
      'step "added" does not come before this one',
    );
    await refused(
      { steps: [{ ...added, instruct: "b", rank: 2 }, { ...both, models: [{ model: "step:added" }] }] },
      'steps.1.models.0.model: step "added" leaves no model',
    );
    await refused({ steps: [{ ...both, method: "none" }] }, "steps.0.method: ", "none");
    await refused(
      { steps: [both, { ...added, base: "gone", newBase: "lost" }] },
      "added: base: ",
      "gone: there is no such file",
      "lost: there is no such file",
    );
    await refused({ steps: [{ name: "x", task: "merge", recipe: "none.yaml" }] }, "none.yaml");
    await refused(
      { steps: [{ ...both, recipe: "none.yaml" }] },
      "steps.0.method: cannot stand beside recipe",
    );
    await refused({
      steps: [{
        ...{ name: "x", task: "distill", teacher: { model: "a" }, student: { model: "teacher" } },
        data: { train: "step:x" },
        output: { folder: "y" },
      }],
    }, "output.folder: is chosen by the chain");
    assertEquals(namesIn(f).filter((name) => name === "data"), []);
  }));

Deno.test("a recipe file of a step has its own folder, and may name steps", () =>
  withModels(MODELS, async (f) => {
    await Deno.mkdir(`${f}/recipes`);
    await Deno.writeTextFile(
      `${f}/recipes/merge.yaml`,
      "method: linear\nmodels:\n  - {model: step:added, weight: 1}\n  - {model: ../b, weight: 1}\n",
    );
    await write(f, [
      { ...STEPS[1], instruct: "b" },
      { name: "merged", task: "merge", recipe: "recipes/merge.yaml" },
    ]);
    const { code, err } = await chain(f);
    assertEquals(code, 0, err);
    assertEquals(runsIn(f).length, 2);
  }));

Deno.test("a step that fails ends the chain with its exit code; the rest is done once it is right", () =>
  withModels({ ...MODELS, wide: { hiddenSize: 32 } }, async (f) => {
    const wrong = { ...STEPS[1], newBase: "wide" };
    await write(f, [STEPS[0], wrong]);
    const failed = await chain(f);
    assertEquals(failed.code, 3, failed.err);
    assertStringIncludes(failed.err, "wide");
    assertEquals(runsIn(f).map((name) => name.split("-")[0]), ["both"]);
    await write(f, STEPS);
    const { code, out } = await chain(f);
    assertEquals(code, 0);
    assertMatch(out, /both: done before[^]*added: residual/);
  }));

Deno.test("a chain that was killed goes on where it was", () =>
  withModels({ base: {}, a: { layers: 60 }, b: { layers: 60, seed: 2 } }, async (f) => {
    await write(f, [STEPS[0], {
      ...STEPS[0],
      name: "again",
      models: [{ model: "step:both" }, { model: "a" }],
    }]);
    const killed = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "-A",
        new URL("../../src/cli/main.ts", import.meta.url).pathname,
        "chain",
        `${f}/chain.json`,
      ]
        .concat("--data", `${f}/data`, "--json"),
      stdout: "piped",
      stderr: "null",
    }).spawn();
    const reader = killed.stdout.pipeThrough(new TextDecoderStream()).getReader();
    for (let said = ""; !said.includes('"progress"');) said += (await reader.read()).value ?? "";
    killed.kill("SIGKILL");
    await killed.status;
    await reader.cancel();
    const { code, err } = await chain(f);
    assertEquals(code, 0, err);
    const folders = runsIn(f);
    assertEquals(folders.length, 2);
    for (const name of folders) {
      assertEquals(namesIn(`${f}/data/chains/${name}`).filter((name) => name.startsWith(".")), []);
      assertEquals((await valuesOf(`${f}/data/chains/${name}/merged`)).size > 0, true);
    }
  }));

Deno.test("what a step left and someone took away is not taken for done", () =>
  withModels(MODELS, async (f) => {
    await write(f, STEPS.slice(0, 1));
    assertEquals((await chain(f)).code, 0);
    const [run] = runsIn(f);
    await Deno.remove(`${f}/data/chains/${run}/merged`, { recursive: true });
    const gone = await chain(f);
    assertEquals(gone.code, 3);
    assertStringIncludes(gone.err, "merged is gone");
    const removed = await limbeck("runs", "rm", `${f}/data/chains/${run}`, "--data", `${f}/data`);
    assertEquals(removed.code, 0, removed.err);
    assertEquals((await chain(f)).code, 0);
  }));
