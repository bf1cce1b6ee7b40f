/** Datasets that `limbeck generate` writes. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { main } from "../../src/cli/main.ts";
import { openDataset } from "../../src/text/dataset.ts";
import { withTiny } from "../distill/tiny_model.ts";
import { fakeTerminal } from "./fake_terminal.ts";

async function limbeck(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const terminal = fakeTerminal();
  const code = await main(argv, terminal);
  return { code, out: terminal.out, err: terminal.err };
}

Deno.test("generate writes rows of texts, or of prompts and completions that say who wrote them", () =>
  withTiny(async ({ folder, teacher }) => {
    const write = async (name: string, ...flags: string[]) => {
      const output = `${folder}/${name}.jsonl`;
      const prompts = ["--prompt", "the cat", "--prompt", "a mat and"];
      const told = await limbeck(
        ...["generate", "--model", teacher, "--no-setup", "--tokens", "6", ...prompts],
        ...["--output", output, ...flags],
      );
      assertEquals(told.code, 0, told.err);
      assertStringIncludes(told.out, `Wrote 2 texts to ${output}`);
      return (await openDataset(output)).map(({ source: _, ...row }) => row);
    };
    const pairs = await write("pairs", "--pairs", "--source", "student");
    const completions = pairs.map((row) => {
      assert(row.shape === "prompt");
      return row.completion;
    });
    assertEquals(pairs, [
      { shape: "prompt", prompt: "the cat", completion: completions[0]!, origin: "student" },
      { shape: "prompt", prompt: "a mat and", completion: completions[1]!, origin: "student" },
    ]);
    assertEquals(await write("texts"), [
      { shape: "text", text: ("the cat" + completions[0]).trim() },
      { shape: "text", text: ("a mat and" + completions[1]).trim() },
    ]);
  }));

Deno.test("generate refuses --pairs and --source where it writes no rows", async () => {
  for (const flags of [["--pairs"], ["--source", "me"]]) {
    const told = await limbeck("generate", "--model", "m", "--no-setup", ...flags);
    assertEquals(told.code, 2);
    assertStringIncludes(told.err, "--pairs and --source are of the rows that --output writes");
  }
});
