/** What `eval --task` says of what does not do, before any model is measured. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertStringIncludes } from "@std/assert";
import { main } from "../../src/cli/main.ts";
import { writeTinyModel } from "../distill/tiny_model.ts";
import { withFolder } from "../runs/fake_run.ts";
import { fakeTerminal } from "./fake_terminal.ts";

Deno.test("eval --task names what is wrong with tasks, models and flags", () =>
  withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/rows.jsonl`, '{"text":"once"}\n{"txt":"upon"}\n');
    await Deno.writeTextFile(`${folder}/good.jsonl`, '{"text":"once"}\n');
    await Deno.writeTextFile(`${folder}/none.jsonl`, "");
    await Deno.writeTextFile(`${folder}/task.yaml`, "kind: rouge\ndata: good.jsonl\nprompts: '{text}'\n");
    await Deno.writeTextFile(
      `${folder}/far.yaml`,
      "kind: perplexity\ndata: good.jsonl\nwindow: {length: 4000}\n",
    );
    await Deno.mkdir(`${folder}/bare`);
    await Deno.writeTextFile(`${folder}/bare/adapter_config.json`, "{}");
    await writeTinyModel(`${folder}/tiny`, { layers: 1 });
    const good = `perplexity=${folder}/good.jsonl`;
    const cases: [code: number, message: string, argv: string[]][] = [
      [2, "name the models", ["--task", good]],
      [2, "models side by side are for tasks", [`${folder}/tiny`]],
      [2, "--report is for tasks", ["--report", "x.html", "--model", `${folder}/tiny`]],
      [2, "--dataset is for a cross-entropy without --task", ["a", "--task", good, "--dataset", "x"]],
      [2, "two tasks are called good-perplexity", ["a", "--task", good, "--task", good]],
      [2, "two models are called a", [`a=${folder}/tiny`, `a=${folder}/tiny`, "--task", good]],
      [3, "the task mmlu needs its data", ["a", "--task", "mmlu"]],
      [3, "there is no such file", ["a", "--task", `${folder}/nothing.yaml`]],
      [3, "prompt: is missing", ["a", "--task", `${folder}/task.yaml`]],
      [3, 'prompts: there is no such field; did you mean "prompt"?', ["a", "--task", `${folder}/task.yaml`]],
      [3, "rows.jsonl:2: has no field {text}", ["a", "--task", `perplexity=${folder}/rows.jsonl`]],
      [3, "the task has no rows", ["a", "--task", `perplexity=${folder}/none.jsonl`]],
      [3, "compares with a teacher, and none is named", [
        `${folder}/tiny`,
        "--task",
        `agreement=${folder}/good.jsonl`,
      ]],
      [3, "does not say which model the adapter is for", [`${folder}/bare`, "--task", good]],
      [3, "windows of 4000 tokens; the model was trained for 128", [
        `${folder}/tiny`,
        "--task",
        `${folder}/far.yaml`,
      ]],
      [3, "/nowhere: there is no such file or folder", [
        `${folder}/tiny`,
        "--task",
        good,
        "--report",
        `${folder}/nowhere/x.html`,
      ]],
      [3, `${folder}/absent`, [`${folder}/absent`, "--task", good]],
    ];
    for (const [code, message, argv] of cases) {
      const terminal = fakeTerminal();
      assertEquals(
        await main(["eval", ...argv, "--no-setup", "--data", folder], terminal),
        code,
        terminal.err,
      );
      assertStringIncludes(terminal.err, message);
    }
  }));
