/** A run whose recipe has tasks: teacher, student before and student after in one table, kept over a stop. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { evaluationMarkdown } from "../../src/evaluation/results/tables.ts";
import { RecipeError, recipeHash } from "../../src/distill/recipe/parse.ts";
import { loadRecipe } from "../../src/distill/recipe/file.ts";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import { evaluationReportHtml } from "../../src/runs/report/evaluation_report.ts";
import { main } from "../../src/cli/main.ts";
import { fakeTerminal } from "../cli/fake_terminal.ts";
import { tinyRecipe, tinyRows, withTiny } from "../distill/tiny_model.ts";
import { runHere } from "../distill/tiny_run.ts";
import { modelTest } from "../tensor/harness.ts";

const questions = [["the cat", "sat on", "his sun"], ["and ran", "home to", "mat mat"], [
  "to see",
  "his",
  "the a",
]]
  .map(([context, ...choices]) => JSON.stringify({ context, choices, answer: 0 }) + "\n").join("");

const tasks = (folder: string) => [
  { kind: "agreement", name: "near", data: `${folder}/texts.jsonl`, text: "{text}", topK: 3 },
  {
    ...{ kind: "multiple-choice", name: "choice", data: `${folder}/questions.jsonl` },
    ...{ context: "{context}", choices: "{choices}", answer: "{answer}" },
  },
  {
    kind: "rouge",
    name: "words",
    data: `${folder}/texts.jsonl`,
    prompt: "{text}",
    reference: "{$teacher}",
    maxTokens: 6,
  },
];

async function writeData(folder: string): Promise<void> {
  await Deno.writeTextFile(`${folder}/questions.jsonl`, questions);
  const texts = tinyRows(12, 3).split("\n").filter((line) => line.includes('"text"'));
  await Deno.writeTextFile(`${folder}/texts.jsonl`, texts.join("\n"));
}

modelTest(
  "a run with tasks measures teacher, student before and after; what was measured is kept",
  (_gpu) =>
    withTiny(async (files) => {
      await writeData(files.folder);
      const recipe = tinyRecipe(files, {
        train: { steps: 6, evaluateEvery: 0 },
        evaluate: { tasks: tasks(files.folder) },
      });
      const run = `${files.folder}/run`;
      const events: RunEventBody[] = [];
      const { evaluation, status } = await runHere(recipe, run, {}, events);
      assertEquals(status, "succeeded");
      assertEquals(evaluation!.models, ["student before", "student after", "teacher"]);
      assertEquals(evaluation!.tasks.map(({ name, items }) => [name, items]), [["near", 8], ["choice", 3], [
        "words",
        8,
      ]]);
      const [near, choice, words] = evaluation!.tasks;
      const kl = near!.figures[0]!;
      const [before, after, teacher] = kl.values as [number, number, number];
      assert(after < before, `${after} after training, ${before} before`);
      assertAlmostEquals(teacher, 0, 1e-6);
      assertEquals(near!.figures.find(({ key }) => key === "top-3-overlap")!.values[2], 1);
      assert(kl.differences[1]!.difference < 0 && kl.differences[1]!.high < 0);
      assertAlmostEquals(kl.differences[1]!.difference, after - before, 1e-9);
      assertEquals(choice!.calibration!.length, 3);
      assertEquals(words!.figures[0]!.values[2], 1);
      const html = evaluationReportHtml(evaluation!);
      for (
        const part of ["Reliability, choice", "<svg", "KL(teacher", "Answers, words"]
      ) assertStringIncludes(html, part);
      assertEquals(/<script|https?:/.test(html), false);
      assertStringIncludes(evaluationMarkdown(evaluation!), "| near | KL(teacher ‖ model) |");

      // An adapter's folder is measured as the run itself is.
      const file = `${files.folder}/near.yaml`;
      await Deno.writeTextFile(file, `kind: agreement\ndata: texts.jsonl\ntopK: 3\n`);
      const terminal = fakeTerminal();
      const argv = [
        "eval",
        `tuned=${run}/adapter`,
        "--teacher",
        files.teacher,
        "--task",
        file,
        "--json",
        "--no-setup",
      ];
      assertEquals(await main(argv, terminal), 0, terminal.err);
      const told = JSON.parse(terminal.out);
      assertEquals(told.models, ["tuned", "teacher"]);
      assertAlmostEquals(told.tasks[0].figures[0].values[0], after, 1e-4);

      // What is there is read again: a kept figure that was changed shows.
      const kept = `${run}/evaluation/student-before.json`;
      const changed = JSON.parse(await Deno.readTextFile(kept));
      changed.measurements[0].figures[0].value = 77;
      await Deno.writeTextFile(kept, JSON.stringify(changed));
      const said: RunEventBody[] = [];
      const again = await runHere(recipe, run, { resume: true }, said);
      assertEquals(again.evaluation!.tasks[0]!.figures[0]!.values, [77, after, teacher]);
      assertEquals(
        said.some((event) => event.type === "stage" && /on near|answers of words/.test(event.message)),
        false,
      );
    }),
);

Deno.test("a recipe's file names tasks by path, and what is wrong with one is told with its place", () =>
  withTiny(async (files) => {
    await writeData(files.folder);
    await Deno.mkdir(`${files.folder}/tasks`);
    await Deno.writeTextFile(
      `${files.folder}/tasks/choice.yaml`,
      "kind: multiple-choice\ndata: ../questions.jsonl\ncontext: '{context}'\nchoices: '{choices}'\nanswer: '{answer}'\n",
    );
    const path = `${files.folder}/recipe.yaml`;
    const written = `teacher: {model: ./teacher}\nstudent: {model: teacher, layers: [0, 2]}\n` +
      `data: {train: ./train.jsonl, heldOut: ./heldout.jsonl, contextLength: 64}\n`;
    await Deno.writeTextFile(path, written + "evaluate: {tasks: [tasks/choice.yaml]}\n");
    const recipe = await loadRecipe(path);
    const [task] = recipe.evaluate!.tasks;
    assertEquals([task!.name, task!.data], ["choice", [`${files.folder}/questions.jsonl`]]);
    await Deno.writeTextFile(path, written);
    assertEquals(recipeHash(recipe), recipeHash(await loadRecipe(path)));
    const wrong = (tasks: (string | Record<string, unknown>)[]) =>
      assertThrows(() => tinyRecipe(files, { evaluate: { tasks } }), RecipeError).message;
    assertStringIncludes(wrong([{ kind: "perplexty", data: "x" }]), "evaluate.tasks.0: kind: must be one of");
    assertStringIncludes(wrong(["choice.yaml"]), "evaluate.tasks.0: names a file");
    assertStringIncludes(
      wrong([{ layout: "piqa", data: "x" }, { layout: "piqa", data: "y" }]),
      "give each a name",
    );
  }));
