/** `limbeck generate --rationales`, with a tiny model and with a server. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { main } from "../../src/cli/main.ts";
import { openDataset } from "../../src/text/dataset.ts";
import { withTiny } from "../distill/tiny_model.ts";
import { fakeServer } from "../served/fake_server.ts";
import { fakeTerminal } from "./fake_terminal.ts";

async function limbeck(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const terminal = fakeTerminal();
  const code = await main(["generate", "--no-setup", ...argv], terminal);
  return { code, out: terminal.out, err: terminal.err };
}

const QUESTIONS = ["the cat", "a mat", "the hat"].map((question) =>
  JSON.stringify({ question, answer: "zebra" }) + "\n"
);
const SOLVED = JSON.stringify({ question: "the rat", answer: "a", rationale: "that mat" }) + "\n";

Deno.test("generate writes rationales with a model on disk, and after a kill only those that have not come", () =>
  withTiny(async ({ folder, teacher }) => {
    await Deno.writeTextFile(`${folder}/questions.jsonl`, QUESTIONS.join(""));
    await Deno.writeTextFile(`${folder}/solved.jsonl`, SOLVED);
    await Deno.writeTextFile(`${folder}/ask.txt`, "{question} {answer} {rationale}\n");
    const output = `${folder}/rationales.jsonl`;
    const part = `${output}.part`;
    const write = (...flags: string[]) =>
      limbeck(
        ...["--rationales", `${folder}/questions.jsonl`, "--examples", `${folder}/solved.jsonl`],
        ...["--template", `${folder}/ask.txt`, "--output", output, "--model", teacher, "--tokens", "5"],
        ...["--per-question", "2", "--together", "4", ...flags],
      );
    const useless = await write("--drop-without-answer");
    assertEquals(useless.code, 3);
    assertStringIncludes(useless.err, "none of 6 rationales is of use");
    const texts = await Deno.readTextFile(part);
    assertEquals(texts.split("\n").length, 8);

    // All have come: nobody is asked.
    const whole = await write();
    assertEquals(whole.code, 0, whole.err);
    assertStringIncludes(whole.out, `of 3 questions to ${output}, as source: teacher`);
    assertStringIncludes(whole.out, "6 texts were there before");
    assertStringIncludes(whole.out, "do not hold the answer, kept");
    const expected = await Deno.readTextFile(output);
    const rows = await openDataset(output);
    assertEquals(rows.filter(({ origin }) => origin === "answer").length, 3);
    const rationales = rows.filter(({ origin }) => origin === "teacher");
    assert(rationales.length >= 4, expected);
    assert(rationales.every((row) => row.shape === "prompt" && row.prompt.startsWith("explain: ")));
    const taken = await write();
    assertEquals([taken.code, taken.err.includes("is already there")], [3, true]);

    // As a kill leaves them: two are missing, and a third is cut.
    const lines = texts.trimEnd().split("\n");
    await Deno.writeTextFile(
      part,
      [lines[0], lines[2], lines[3], lines[5], lines[6]!.slice(0, 20)].join("\n"),
    );
    const other = await write("--force", "--seed", "2");
    assertEquals(other.code, 3);
    assertStringIncludes(other.err, "was begun with seed 1, not 2");
    const again = await write("--force");
    assertEquals(again.code, 0, again.err);
    assertStringIncludes(again.out, "3 texts were there before");
    assertEquals(await Deno.readTextFile(output), expected);
  }));

Deno.test("generate writes rationales with a server, whose errors name flags", async () => {
  const folder = await Deno.makeTempDir();
  const server = fakeServer({ vocabulary: 9, key: "secret" });
  try {
    await Deno.writeTextFile(`${folder}/questions.jsonl`, QUESTIONS.join(""));
    const output = `${folder}/rationales.jsonl`;
    const write = (...flags: string[]) =>
      limbeck(
        ...["--rationales", `${folder}/questions.jsonl`, "--server", server.url, "--served-model", "org/big"],
        ...["--output", output, "--chat", ...flags],
      );
    const refused = await write();
    assertEquals(refused.code, 3);
    assertStringIncludes(refused.err, "name the environment variable that holds it in --key-variable");
    Deno.env.set("LIMBECK_KEY_OF_TEST", "secret");
    const key = ["--key-variable", "LIMBECK_KEY_OF_TEST"];
    // Three were refused just now, and count.
    const spent = await write(...key, "--budget-requests", "5", "--together", "1");
    assertEquals(spent.code, 3);
    assertStringIncludes(spent.err, "Raise --budget-requests to go on");
    const whole = await write(...key, "--without-answers", "--json");
    assertEquals(whole.code, 0, whole.err);
    const told = JSON.parse(whole.out);
    assertEquals([told.rows, told.resumed, told.source], [3, 2, "big"]);
    assert(!(await Deno.readTextFile(output)).includes("secret"));
    assertEquals(
      await Array.fromAsync(Deno.readDir(folder), ({ name }) => name).then((names) => names.sort()),
      [
        "questions.jsonl",
        "rationales.jsonl",
      ],
    );
  } finally {
    Deno.env.delete("LIMBECK_KEY_OF_TEST");
    await server.close();
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("generate refuses what does not go with rationales, before any work", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const file = `${folder}/q.jsonl`;
    await Deno.writeTextFile(file, QUESTIONS.join(""));
    const output = ["--output", `${folder}/out.jsonl`];
    const asked = ["--rationales", file, ...output, "--model", "./nowhere"];
    const faults: [number, string, string[]][] = [
      [2, "--shots is for rationales", ["--shots", "2"]],
      [2, "--output FILE", ["--rationales", file, "--model", "m"]],
      [2, "--prompt does not go with --rationales", [...asked, "--prompt", "x"]],
      [2, "name one model", ["--rationales", file, ...output]],
      [2, "--model does not go with --server", [...asked, "--server", "https://h/v1"]],
      [2, "--server needs --served-model", ["--rationales", file, ...output, "--server", "https://h/v1"]],
      [2, "--budget-tokens is of a server", [...asked, "--budget-tokens", "9"]],
      [2, "in the clear: use https, or allow it with --allow-http", [
        ...["--rationales", file, ...output, "--server", "http://h/v1", "--served-model", "m"],
      ]],
      [2, "would be the same at --temperature 0", [...asked, "--per-question", "2", "--temperature", "0"]],
      [2, '--columns has "body"', [...asked, "--columns", "question=q,body"]],
      [2, "--source answer is what rows of answers have", [...asked, "--source", "answer"]],
      [3, "fewer than --shots 4", [
        ...asked,
        "--shots",
        "4",
        "--columns",
        "rationale=answer",
        "--examples",
        file,
      ]],
      [3, 'there is no column "rationale"', [...asked, "--examples", file]],
      [3, "nowhere", asked],
    ];
    for (const [code, message, flags] of faults) {
      const told = await limbeck(...flags);
      assertEquals(told.code, code, told.err);
      assertStringIncludes(told.err, message);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
