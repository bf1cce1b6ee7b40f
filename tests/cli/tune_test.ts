/** `limbeck tune`, and what `limbeck doctor` then shows. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertGreater, assertStringIncludes } from "@std/assert";
import { main } from "../../src/cli/main.ts";
import { tinyRecipe, withTiny } from "../distill/tiny_model.ts";
import { fakeTerminal } from "./fake_terminal.ts";

async function limbeck(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const terminal = fakeTerminal();
  const code = await main(argv, terminal);
  return { code, out: terminal.out, err: terminal.err };
}

Deno.test({
  name: "tune times kernels of a recipe, keeps what is best, and doctor shows it",
  sanitizeResources: false,
  sanitizeOps: false,
  fn: () =>
    withTiny(async (files) => {
      const recipe = `${files.folder}/recipe.json`;
      await Deno.writeTextFile(recipe, JSON.stringify(tinyRecipe(files)));
      const data = ["--data", `${files.folder}/kept`, "--no-setup"];
      const bounds = ["--budget", "1", "--seconds", "0.001"];
      const first = await limbeck("tune", recipe, ...data, ...bounds, "--json");
      assertEquals([first.code, first.err], [0, ""]);
      const found = JSON.parse(first.out);
      // No time is enough for one alone.
      assertEquals(found.choices.length, 1);
      assertGreater(found.peak.operations.rate, 0);
      assertEquals(Object.values(found.left).every((why) => why === "there was no time for it"), true);
      const [{ key, kernel, measured }] = found.choices;
      assertEquals(measured, "now");

      const second = await limbeck("tune", recipe, ...data, "--budget", "1", "--seconds", "0.001");
      assertEquals([second.code, second.err], [0, ""]);
      assertStringIncludes(second.out, key);
      assertStringIncludes(second.out, `1 of ${found.choices.length + 1} choices were made now`);

      const doctor = await limbeck("doctor", ...data, "--json");
      const { kernels } = JSON.parse(doctor.out);
      assert(kernels.some((choice: typeof found) => choice.key === key && choice.kernel === kernel));
      assertStringIncludes(
        (await limbeck("doctor", ...data)).out,
        `choices made on this device: ${kernels.length}`,
      );
    }),
});

Deno.test("tune refuses what it cannot do", async () => {
  const cases: [string[], number, string][] = [
    [["tune", "--budget", "0"], 2, "--budget must be a whole number from 1"],
    [["tune", "--seconds=-1"], 2, "--seconds must be a number above 0"],
    [["tune", "nowhere.yaml", "--no-setup"], 3, "nowhere.yaml"],
  ];
  for (const [argv, code, message] of cases) {
    const found = await limbeck(...argv);
    assertEquals(found.code, code, argv.join(" "));
    assertStringIncludes(found.err, message);
  }
});
