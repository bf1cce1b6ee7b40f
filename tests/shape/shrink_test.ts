/** `limbeck shrink` from the command line down: what it finds and writes, what it remembers, what it refuses. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { main } from "../../src/cli/main.ts";
import { modelIdentity } from "../../src/distill/inputs/identity.ts";
import { Model } from "../../src/distill/inputs/models.ts";
import { openStudent } from "../../src/distill/inputs/prepare.ts";
import { InputError } from "../../src/base/errors.ts";
import { readShapeFile, writeShapeFile } from "../../src/formats/shape_file.ts";
import { parseRecipe } from "../../src/distill/recipe/parse.ts";
import { runHere } from "../distill/tiny_run.ts";
import { fakeTerminal } from "../cli/fake_terminal.ts";
import { type TinyFiles, tinyRecipe, withTiny, writeTinyModel } from "../distill/tiny_model.ts";

const LAYERS = 5;

async function limbeck(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const terminal = fakeTerminal();
  const code = await main(argv, terminal);
  return { code, out: terminal.out, err: terminal.err };
}

/** Runs `limbeck shrink` on the tiny model. */
function shrink({ folder, teacher, heldOut }: TinyFiles, ...more: string[]) {
  const data = more.includes("--data") ? [] : ["--data", heldOut];
  return limbeck("shrink", teacher, ...data, "--cache", `${folder}/cache`, "--no-setup", ...more);
}

function tinyTest(name: string, fn: (files: TinyFiles) => Promise<void>): void {
  Deno.test({
    ...{ name, sanitizeOps: false, sanitizeResources: false },
    fn: () => withTiny(fn, { layers: LAYERS }),
  });
}

tinyTest("shrink finds layers, writes a model of them, and tells how it compares", async (files) => {
  const { folder, teacher } = files;
  const args = ["--layers", "3", "--search", "exhaustive", "--metric", "kl"];
  const { code, out, err } = await shrink(files, ...args, "--output", `${folder}/small`, "--json");
  assertEquals(code, 0, err);
  const told = JSON.parse(out);
  assertEquals([told.by, told.rank, told.evaluated, told.possible], ["exhaustive", 1, 10, 10]);
  assertEquals(told.kept.length, 3);
  assertEquals(told.full.kl, 0);
  assert(told.others.every((o: { kl: number; rank: number }) => o.kl >= told.kl && o.rank >= 1));
  assertEquals(told.others.map(({ by }: { by: string }) => by), ["cosine", "evenly-spaced", "every-other"]);

  // The folder is the model: its tensors are those of the kept layers, and its own loss is the subset's.
  const small = await Model.open(`${folder}/small`, { category: "weights" });
  const cut = await Model.open(teacher, { category: "weights", layers: told.kept });
  assertEquals(small.config.layers, 3);
  assertEquals(small.architecture.parameterCount, told.parameters);
  for (const name of cut.tensors().keys()) {
    assertEquals((await small.read(name)).data, (await cut.read(name)).data, name);
  }
  small.close();
  cut.close();
  const measured = await limbeck(
    ...["eval", "--model", `${folder}/small`, "--dataset", files.heldOut, "--no-setup", "--json"],
  );
  assert(Math.abs(JSON.parse(measured.out).loss - told.loss) < 1e-6, measured.out + measured.err);
  const card = await Deno.readTextFile(`${folder}/small/README.md`);
  assertStringIncludes(card, `Layers ${told.kept.join(", ")} of the 5 of teacher, renumbered from 0`);
  assertStringIncludes(card, told.model.identity);
});

tinyTest("shrink shows a table", async (files) => {
  const { code, out } = await shrink(files, "--layers", "4");
  assertEquals(code, 0);
  assert(/kept +loss +kl +parameters +place/.test(out), out);
  assertStringIncludes(out, "of the 5 subsets of 4 layers that were evaluated; there are no others.");
  assert(/^dp +\d,\d,\d,\d +\d\.\d{4} +\d\.\d{4} +/m.test(out), out);
});

tinyTest("a search that was ended goes on where it was", async (files) => {
  const { folder } = files;
  const run = async () => JSON.parse((await shrink(files, "--layers", "3", "--json")).out);
  const whole = await run();
  assertEquals(whole.cache.reused, 0);
  const lines = (await Deno.readTextFile(whole.cache.path)).trimEnd().split("\n");
  // As a kill leaves it: some evaluations, and half a line.
  await Deno.writeTextFile(whole.cache.path, lines.slice(0, 5).join("\n") + "\n" + lines[5]!.slice(0, 9));
  const resumed = await run();
  assertEquals(resumed.cache.reused, 4);
  assertEquals({ ...resumed, cache: 0 }, { ...whole, cache: 0 });
  const again = await run();
  assertEquals(again.cache.reused, lines.length - 1);
  assertEquals({ ...again, cache: 0 }, { ...whole, cache: 0 });
  // Other data is another file.
  const other = await shrink(files, "--layers", "3", "--json", "--limit", "3");
  assertEquals(JSON.parse(other.out).cache.reused, 0);
  assertEquals([...Deno.readDirSync(`${folder}/cache`)].length, 4);
});

tinyTest("what is remembered is used, not measured again", async (files) => {
  const told = JSON.parse((await shrink(files, "--layers", "4", "--json")).out);
  const text = await Deno.readTextFile(told.cache.path);
  // Somebody else's value for the worst subset makes it the best.
  const worst = [0, 1, 2, 3, 4].map((gone) => [0, 1, 2, 3, 4].filter((l) => l !== gone))
    .find((kept) => String(kept) !== String(told.kept))!;
  await Deno.writeTextFile(
    told.cache.path,
    `${text}${JSON.stringify({ kept: worst, values: { loss: 0.001 } })}\n`,
  );
  assertEquals(JSON.parse((await shrink(files, "--layers", "4", "--json")).out).kept, worst);
});

tinyTest("a shape file cuts a recipe's student, and no other model", async (files) => {
  const { folder, teacher } = files;
  const path = `${folder}/shape.json`;
  const told = JSON.parse((await shrink(files, "--layers", "2", "--shape", path, "--json")).out);
  const shape = await readShapeFile(path);
  assertEquals(shape.keptLayers, told.kept);
  const recipe = tinyRecipe(files, { student: { model: "teacher", shape: path } });
  const student = await openStudent(recipe);
  assertEquals(student.keptLayers, told.kept);
  assertEquals(student.config.layers, 2);
  assertEquals(await modelIdentity(student), shape.model.identity);
  student.close();

  await writeTinyModel(`${folder}/other`, { layers: LAYERS, seed: 2 });
  await assertRejects(
    () => openStudent(tinyRecipe(files, { student: { model: `${folder}/other`, shape: path } })),
    InputError,
    `${path}: is the shape of another model than ${folder}/other: it was found for ${teacher}`,
  );
});

/** Writes a shape of a model. */
async function writeShapeOf(path: string, model: string, keptLayers: readonly number[]): Promise<void> {
  const opened = await Model.open(model, { category: "weights" });
  const identity = await modelIdentity(opened);
  opened.close();
  const shaped = { path: model, identity, layers: opened.sourceLayers };
  await writeShapeFile(path, { limbeck: "shape", version: 1, model: shaped, keptLayers });
}

tinyTest("a run with a shape is the run with its layers, and does not go on with others", async (files) => {
  const { folder, teacher } = files;
  const shape = `${folder}/shape.json`;
  await writeShapeOf(shape, teacher, [0, 2, 4]);
  const train = { steps: 4, checkpointEvery: 2 };
  const recipeOf = (student: { shape: string } | { layers: number[] }) =>
    tinyRecipe(files, { student: { model: "teacher", ...student }, train });
  const listed = await runHere(recipeOf({ layers: [0, 2, 4] }), `${folder}/listed`);
  const shaped = recipeOf({ shape });
  const control = (step: number) => step === 2 ? "stop" as const : "run" as const;
  assertEquals((await runHere(shaped, `${folder}/shaped`, { control })).status, "paused");
  await writeShapeOf(shape, teacher, [0, 1, 4]);
  await assertRejects(
    () => runHere(shaped, `${folder}/shaped`, { resume: true }),
    InputError,
    "student's shape",
  );
  await writeShapeOf(shape, teacher, [0, 2, 4]);
  const resumed = await runHere(shaped, `${folder}/shaped`, { resume: true });
  assertEquals(resumed.heldOut, listed.heldOut);
  assertEquals(
    await Deno.readFile(`${folder}/shaped/merged/model.safetensors`),
    await Deno.readFile(`${folder}/listed/merged/model.safetensors`),
  );
});

Deno.test("a recipe does not say twice which layers stay", () => {
  const error = assertThrows(
    () =>
      parseRecipe({
        teacher: { model: "a" },
        student: { model: "teacher", layers: [0], shape: "s.json" },
        data: { train: "d" },
      }),
    InputError,
  );
  assertStringIncludes(
    error.message,
    "student.shape: says which layers are kept, and so does student.layers",
  );
});

const SHAPES: readonly [what: string, change: (shape: Record<string, unknown>) => unknown, said: string][] = [
  ["other JSON", () => [1], "the file: "],
  ["another version", (s) => ({ ...s, version: 2 }), "version: "],
  ["an unknown member", (s) => ({ ...s, heads: 3 }), "heads"],
  ["layers that fall", (s) => ({ ...s, keptLayers: [2, 1] }), "keptLayers: must rise, each number once"],
  ["no layers", (s) => ({ ...s, keptLayers: [] }), "keptLayers: "],
  ["layers beyond the model's", (s) => ({ ...s, keptLayers: [0, 5] }), "names layers 5 of a model with 5"],
  [
    "widths of too few layers",
    (s) => ({ ...s, width: { groups: [[0]], channels: [[0], [1]] } }),
    "width.groups: has 1 entries for 2 kept layers",
  ],
];

Deno.test("what is no shape file is refused with its reason", async () => {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/shape.json`;
  const model = { path: "x", identity: "0".repeat(64), layers: 5 };
  const shape = { limbeck: "shape", version: 1, model, keptLayers: [0, 3] };
  try {
    await Deno.writeTextFile(path, JSON.stringify(shape));
    assertEquals((await readShapeFile(path)).keptLayers, [0, 3]);
    for (const [what, change, said] of SHAPES) {
      await Deno.writeTextFile(path, JSON.stringify(change(shape)));
      const error = await assertRejects(() => readShapeFile(path), InputError, undefined, what);
      assertStringIncludes(error.message, `${path}: is no shape file: `);
      assertStringIncludes(error.message, said, what);
    }
    await Deno.writeTextFile(path, "{");
    await assertRejects(() => readShapeFile(path), InputError, "not valid JSON");
    await assertRejects(() => readShapeFile(`${path}.not`), InputError, "there is no such file");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

tinyTest("shrink refuses what cannot be, before it measures anything", async (files) => {
  const { folder, teacher, heldOut } = files;
  const refused = async (code: number, said: string, ...args: string[]) => {
    const found = await shrink(files, ...args);
    assertEquals(found.code, code, `${args}: ${found.err}`);
    assertStringIncludes(found.err, said);
    assert(
      !await Deno.stat(`${folder}/cache`).then(() => true, () => false),
      `${args}: something was measured`,
    );
  };
  await refused(2, "say how many layers stay: --layers COUNT");
  await refused(2, "--search deep: expected one of dp, exhaustive", "--layers", "3", "--search", "deep");
  await refused(2, "--metric bleu: expected one of loss, kl, accuracy", "--layers", "3", "--metric", "bleu");
  await refused(3, "5 of the model's 5 layers cannot be what is left", "--layers", "5");
  await refused(3, "3 layers at the end cannot stay where 2 stay", "--layers", "2", "--keep-last", "3");
  await refused(3, "every other of 5 layers is 3, not 2", "--layers", "2", "--search", "every-other");
  await refused(
    3,
    "evenly-spaced keeps layers 0, 2, 4, not the last 2",
    ...["--layers", "3", "--search", "evenly-spaced", "--keep-last", "2"],
  );
  await refused(3, "is already there", "--layers", "3", "--output", teacher);
  await refused(3, "is already there", "--layers", "3", "--shape", heldOut);
  await refused(3, "there is no such file or folder", "--layers", "3", "--shape", `${folder}/no/shape.json`);
  await refused(3, "there is no such file", "--layers", "3", "--data", `${folder}/no.jsonl`);
  await refused(3, "trained for 128 positions, not 200", "--layers", "3", "--context-length", "200");
  const bare = `${folder}/bare.jsonl`;
  await Deno.writeTextFile(bare, '{"prompt": "the cat", "completion": "s"}\n{"text": ""}\n');
  await refused(3, "text is empty", "--layers", "3", "--data", bare);
  // Cut to its prompt, nothing of the only row is to be predicted.
  await Deno.writeTextFile(bare, '{"prompt": "the cat sat on the mat and ran", "completion": " home"}\n');
  await refused(
    3,
    "no sample is left of 1 rows: 0 dropped as too long, 1 without a token to predict",
    ...["--layers", "3", "--data", bare, "--context-length", "4"],
  );
});
