/** What devices chose, kept in a data folder and handed to runs. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
// @ts-types="../../types/std_colors.d.ts"
import { stripAnsiCode } from "@std/fmt/colors";
import { InputError } from "../../src/base/errors.ts";
import { parseRecipe } from "../../src/distill/recipe/parse.ts";
import { RecipeError } from "../../src/distill/recipe/parse.ts";
import type { RunEvent } from "../../src/distill/run/events.ts";
import { keepMeasured, keepTuned, readTuned } from "../../src/runs/store/tuned_files.ts";
import { leftLines, refusedLines, tunedLines } from "../../src/cli/terminal/tuned_table.ts";
import { addMeasured, choicesOf, peakRates, tunedText } from "../../src/tune/tuned.ts";
import { startFake, withFolder } from "../runs/fake_run.ts";
import { tunedChoice, tunedDevice } from "./tuned.ts";

const CARD = tunedDevice("card");

function files(folder: string): string[] {
  return [...Deno.readDirSync(`${folder}/tuned`)].map(({ name }) => name).sort();
}

Deno.test("a device finds what it chose, and only it; what is newer takes the place of what is older", () =>
  withFolder(async (folder) => {
    assertEquals(await readTuned(folder), []);
    await keepTuned(folder, CARD, [tunedChoice("p"), tunedChoice("q")]);
    await keepTuned(folder, { ...CARD, description: "the next driver" }, [tunedChoice("r")]);
    await keepTuned(folder, CARD, [tunedChoice("p", { kernel: "c" })]);
    const kept = await readTuned(folder);
    const found = choicesOf(kept, CARD).map(({ key, kernel }) => key + kernel);
    assertEquals(found, ["qb", "pc"]);
    assertEquals(choicesOf(kept, { ...CARD, features: [] }), []);
    assertEquals(files(folder).length, 3, "a file a device, and the lock");
  }));

Deno.test("several who measure at once lose nothing of each other", () =>
  withFolder(async (folder) => {
    const keys = Array.from({ length: 12 }, (_, i) => `choice ${i}`);
    await Promise.all(keys.map((key) => keepTuned(folder, CARD, [tunedChoice(key)])));
    const found = choicesOf(await readTuned(folder), CARD).map(({ key }) => key);
    assertEquals(found.sort(), keys.sort());
    assert(files(folder).every((name) => !name.includes("tmp")));
  }));

Deno.test("a damaged file is told, left out, and written anew", () =>
  withFolder(async (folder) => {
    await keepTuned(folder, CARD, [tunedChoice("p")]);
    const path = `${folder}/tuned/${files(folder).find((name) => name.endsWith(".json"))}`;
    const damages = ["{", "[]", '{"version": 2}', '{"version": 1, "device": {}, "choices": []}', ""];
    for (const text of damages) {
      await Deno.writeTextFile(path, text);
      const told: string[] = [];
      assertEquals(await readTuned(folder, (message) => told.push(message)), []);
      assertEquals(told.length, 1);
      assertStringIncludes(told[0]!, `${path} is left out`);
      await keepTuned(folder, CARD, [tunedChoice("q")]);
      assertEquals(choicesOf(await readTuned(folder), CARD).map(({ key }) => key), ["q"]);
    }
    await Deno.writeTextFile(`${folder}/tuned/notes.txt`, "not ours");
    await Deno.mkdir(`${folder}/tuned/folder.json`);
    assertEquals((await readTuned(folder)).length, 1);
  }));

Deno.test("what is no measurement is not kept, nor is one where there is no room", () =>
  withFolder(async (folder) => {
    const told = { device: CARD, choices: [tunedChoice("p", { seconds: -1 })] };
    await assertRejects(() => keepMeasured(folder, told), InputError, "not well formed");
    await assertRejects(() => keepMeasured(folder, { device: CARD, choices: {} }), InputError);
    await Deno.writeTextFile(`${folder}/tuned`, "a file");
    await assertRejects(() => keepTuned(folder, CARD, []));
    const damaged: string[] = [];
    assertEquals(await readTuned(folder, (message) => damaged.push(message)), []);
    assertEquals(damaged.length, 1);
  }));

const messages = (events: readonly RunEvent[], code: string) =>
  events.flatMap((event) => event.type === "warning" && event.code === code ? [event.message] : []);

Deno.test("what the process of a run has measured is kept, and the next run's process is told of it", () =>
  withFolder(async (folder) => {
    for (const [i, tune] of [undefined, "never" as const].entries()) {
      const { events, supervised, run } = await startFake(folder, { tunes: "card" }, { steps: 1, tune });
      assertEquals((await supervised.outcome).state, "succeeded");
      const kept = i === 0 ? ["auto"] : ["never", "card 1"];
      assertEquals(messages(events, "tuning"), [kept.join("; ")]);
      assertEquals(events.filter(({ type }) => type === "tuned").length, 1);
      const found = choicesOf(await readTuned(run.store.folder), CARD).map(({ key }) => key);
      assertEquals(found, ["choice 0", "choice 1"].slice(0, i + 1));
    }
  }));

Deno.test("a run goes on without what is damaged or cannot be kept, and says so", () =>
  withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/tuned`, "a file where the folder should be");
    const { events, supervised } = await startFake(folder, { tunes: "card" }, { steps: 1 });
    assertEquals((await supervised.outcome).state, "succeeded");
    assertEquals(messages(events, "damaged_tuning").length, 1);
    assertEquals(messages(events, "tuning_not_kept").length, 1);
  }));

Deno.test("a process that dies while it times kernels is begun again, and times none", () =>
  withFolder(async (folder) => {
    const { events, supervised } = await startFake(folder, { diesTuning: true }, { steps: 1 });
    assertEquals((await supervised.outcome).state, "succeeded");
    const states = events.flatMap((event) => event.type === "state" ? [event] : []);
    assertEquals(
      states.map(({ state, message = "" }) => state === "queued" ? message : state),
      ["", "running", "interrupted", "it begins again, without timing kernels", "running", "succeeded"],
    );
  }));

Deno.test("no recipe chooses kernels", () => {
  const recipe = {
    teacher: { model: "a" },
    student: { model: "teacher" },
    data: { train: "train.jsonl" },
    train: { steps: 1 },
  };
  parseRecipe(recipe);
  for (const place of ["kernels", "train.kernels", "limits.kernels"]) {
    const [section, field] = place.includes(".") ? place.split(".") as [string, string] : [place, undefined];
    const own = (recipe as Record<string, unknown>)[section] as object | undefined;
    const wrong = { ...recipe, [section]: field ? { ...own, [field]: { a: "b" } } : { a: "b" } };
    const error = (() => {
      try {
        parseRecipe(wrong);
      } catch (error) {
        return error;
      }
    })();
    assert(error instanceof RecipeError && error.message.includes("kernels"), place);
  }
});

Deno.test("what was not timed is told by the reason", () => {
  const late = Object.fromEntries(["a", "b", "c", "d", "e"].map((key) => [key, "there was no time for it"]));
  assertEquals(leftLines({ ...late, f: "it was stopped" }), [
    "not timed, there was no time for it: a, b, c, and 2 more",
    "not timed, it was stopped: f",
  ]);
});

Deno.test("what was measured is summed up", () => {
  const choices = [
    tunedChoice("fast", { flops: 8e9 }),
    tunedChoice("wide", { bytes: 4e6, kernel: "a", seconds: 2e-3 }),
    tunedChoice("none", { seconds: 0 }),
    tunedChoice("odd", {
      kernel: "a",
      seconds: 2e-3,
      tried: [{ kernel: "b", refused: "its numbers are off" }],
    }),
  ];
  assertEquals(peakRates(choices), {
    operations: { rate: 8e12, key: "fast" },
    bytes: { rate: 2e9, key: "wide" },
  });
  assertEquals(peakRates([]), undefined);
  assertEquals(refusedLines(choices), ["odd: b is not used: its numbers are off"]);
  assertEquals(stripAnsiCode(tunedLines(choices.slice(0, 2)).join("\n")).split("\n"), [
    "work  stands first  best      time  GFLOP/s  GB/s  gain    timed",
    "fast  a             b         1 ms  8000     1     2.00 x  2 of 2",
    "wide  a             the same  2 ms  1000     2     1.00 x  2 of 2",
  ]);
  assertEquals(
    tunedText({ choices: [], left: 3, seconds: 0.04 }),
    "the device made 0 choices among kernels in 0.0 s: nothing was timed to its end; 3 choices are left for later",
  );
  assertEquals(
    tunedText({ choices: [choices[0]!, choices[3]!], left: 2, seconds: 1.25 }),
    "the device made 2 choices among kernels in 1.3 s: 1 of them another than stands first, up to 2.00 times as fast; " +
      "2 choices are left for later; not to be used here: b for odd: its numbers are off",
  );
});

Deno.test("what was measured on a device is added to what is kept of it, beside that of others", () => {
  const [one, other] = [tunedDevice("one"), tunedDevice("other")];
  const first = addMeasured([], { device: one, choices: [tunedChoice("p"), tunedChoice("q")] });
  const both = addMeasured(first, { device: other, choices: [tunedChoice("r")] });
  const newer = addMeasured(both, { device: one, choices: [tunedChoice("q", { kernel: "a" })] });
  assertEquals(choicesOf(newer, one), [tunedChoice("p"), tunedChoice("q", { kernel: "a" })]);
  assertEquals(choicesOf(newer, other), [tunedChoice("r")]);
  assertEquals(newer.length, 2);
});
