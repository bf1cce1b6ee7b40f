/** `limbeck shrink --width` from the command line down, and recipes with shapes that cut the width. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { main } from "../../src/cli/main.ts";
import { modelIdentity } from "../../src/distill/inputs/identity.ts";
import { Model } from "../../src/distill/inputs/models.ts";
import { openStudent, openTokenizer } from "../../src/distill/inputs/prepare.ts";
import { readShapeFile, writeShapeFile } from "../../src/formats/shape_file.ts";
import { encodeDataset } from "../../src/text/encode.ts";
import { openDataset } from "../../src/text/dataset.ts";
import { fakeTerminal } from "../cli/fake_terminal.ts";
import { Reader } from "../distill/logits.ts";
import { runHere } from "../distill/tiny_run.ts";
import { type TinyFiles, tinyRecipe, withTiny } from "../distill/tiny_model.ts";
import { testGpu } from "../tensor/harness.ts";
import { logProbabilities } from "./width_golden.ts";

async function limbeck(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const terminal = fakeTerminal();
  const code = await main(argv, terminal);
  return { code, out: terminal.out, err: terminal.err };
}

function shrink({ folder, teacher, train }: TinyFiles, ...more: string[]) {
  return limbeck("shrink", teacher, "--data", train, "--cache", `${folder}/cache`, "--no-setup", ...more);
}

function tinyTest(name: string, fn: (files: TinyFiles) => Promise<void>): void {
  Deno.test({ ...{ name, sanitizeOps: false, sanitizeResources: false }, fn: () => withTiny(fn) });
}

/** Loss and KL(a || b) over the supervised tokens of the training rows. */
async function compared({ train }: TinyFiles, a: string, b: string): Promise<{ loss: number; kl: number }> {
  const gpu = await testGpu();
  const [full, cut] = [
    await Model.open(a, { category: "weights" }),
    await Model.open(b, { category: "weights" }),
  ];
  try {
    const { tokenizer } = await openTokenizer(full);
    const { samples } = encodeDataset(await openDataset(train), { tokenizer, contextLength: 128 });
    using readers = new DisposableStack();
    const [p, q] = [
      readers.use(await Reader.open(gpu, full, 128)),
      readers.use(await Reader.open(gpu, cut, 128)),
    ];
    const vocabulary = full.config.vocabularySize;
    let [loss, kl, count] = [0, 0, 0];
    for (const { ids, supervised } of samples) {
      const [of, other] = [(await p.logits(ids)).slice(), await q.logits(ids)];
      for (let t = 0; t + 1 < ids.length; t++) {
        if (!supervised[t + 1]) continue;
        const row = (logits: Float32Array) =>
          logProbabilities(logits.subarray(t * vocabulary, (t + 1) * vocabulary));
        const [x, y] = [row(of), row(other)];
        loss -= y[ids[t + 1]!]!;
        x.forEach((log, v) => kl += Math.exp(log) * (log - y[v]!));
        count++;
      }
    }
    return { loss: loss / count, kl: kl / count };
  } finally {
    full.close();
    cut.close();
  }
}

tinyTest("shrink --width writes a narrower model, and tells what it costs", async (files) => {
  const { folder, teacher } = files;
  const args = ["--width", "0.6", "--structure", "uniform", "--output", `${folder}/narrow`, "--json"];
  const { code, out, err } = await shrink(files, ...args);
  assertEquals(code, 0, err);
  const told = JSON.parse(out);
  const { width } = told;
  assertEquals([width.ratio, width.structure, width.compensation, width.faithful], [
    0.6,
    "uniform",
    true,
    false,
  ]);
  assertEquals(width.groups.map((kept: number[]) => kept.length), [1, 1, 1]);
  assertEquals(width.channels.map((kept: number[]) => kept.length), [26, 26, 26]);
  const narrow = await Model.open(`${folder}/narrow`, { category: "weights" });
  narrow.close();
  assertEquals(narrow.architecture.parameterCount, told.parameters);
  assertEquals([narrow.config.attentionHeads, narrow.config.intermediateSize], [2, 26]);
  const found = await compared(files, teacher, `${folder}/narrow`);
  assertAlmostEquals(width.loss, found.loss, 1e-4);
  assertAlmostEquals(width.kl, found.kl, 1e-4);
  assertAlmostEquals(width.full.loss, (await compared(files, teacher, teacher)).loss, 1e-4);
  assertAlmostEquals(width.full.kl, 0, 1e-6);
  const card = await Deno.readTextFile(`${folder}/narrow/README.md`);
  assertStringIncludes(card, "`limbeck shrink --width 0.6 --structure uniform --metric loss`");
  assertStringIncludes(
    card,
    "Groups of heads that each layer keeps: 1, 1, 1. Channels of the MLP: 26, 26, 26.",
  );
});

tinyTest(
  "shrink cuts layers first, then the width of those that stay; its shape is its folder",
  async (files) => {
    const { folder } = files;
    const shape = `${folder}/shape.json`;
    const args = ["--layers", "2", "--search", "every-other", "--width", "0.5"];
    const { code, out, err } = await shrink(files, ...args, "--output", `${folder}/small`, "--shape", shape);
    assertEquals(code, 0, err);
    assert(/^width 0\.5 +\d\.\d{4} +\d\.\d{4} +/m.test(out), out);
    assertStringIncludes(out, "Layers 0, 2");
    const { keptLayers, width } = await readShapeFile(shape);
    assertEquals(keptLayers, [0, 2]);
    assertEquals(width!.compensation!.length, 2);

    const recipe = tinyRecipe(files, { student: { model: "teacher", shape } });
    const student = await openStudent(recipe);
    const small = await Model.open(`${folder}/small`, { category: "weights" });
    assertEquals([...student.tensors()].sort(), [...small.tensors()].sort());
    for (const name of small.tensors().keys()) {
      assertEquals((await student.read(name)).data, (await small.read(name)).data, name);
    }
    assertEquals([student.isNarrowed, student.keptLayers], [true, [0, 2]]);
    assert(await modelIdentity(student) !== await modelIdentity(small));
    student.close();
    small.close();
  },
);

tinyTest("a student with a shape learns, and leaves folders that load without it", async (files) => {
  const { folder, heldOut } = files;
  const shape = `${folder}/shape.json`;
  assertEquals((await shrink(files, "--width", "0.6", "--shape", shape)).code, 0);
  const recipe = tinyRecipe(files, {
    student: { model: "teacher", shape },
    train: { steps: 6, checkpointEvery: 0, evaluateEvery: 0, learningRate: 0.03 },
  });
  const { heldOut: found, paths } = await runHere(recipe, `${folder}/run`);
  assert(found.after! < found.before!, `${found.before} became ${found.after}`);
  assertEquals(paths.base, "base");
  for (const [part, loss] of [["base", found.before], ["merged", found.after]] as const) {
    const args = ["eval", "--model", `${folder}/run/${part}`, "--dataset", heldOut, "--no-setup", "--json"];
    const measured = await limbeck(...args, "--context-length", "64");
    assertAlmostEquals(JSON.parse(measured.out).loss, loss!, 1e-4, part);
  }
});

tinyTest("a shape of widths that the model has not is refused", async (files) => {
  const { folder, teacher } = files;
  const path = `${folder}/shape.json`;
  const model = await Model.open(teacher, { category: "weights" });
  const identity = await modelIdentity(model);
  model.close();
  const shape = {
    limbeck: "shape",
    version: 1,
    model: { path: teacher, identity, layers: 3 },
    keptLayers: [0, 2],
  } as const;
  const refused = async (width: { groups: number[][]; channels: number[][] }, said: string) => {
    await writeShapeFile(path, { ...shape, width });
    const recipe = tinyRecipe(files, { student: { model: "teacher", shape: path } });
    await assertRejects(() => openStudent(recipe), InputError, said);
  };
  await refused(
    { groups: [[0], [2]], channels: [[1], [2]] },
    "the groups of layer 1 must rise from 0 to at most 1",
  );
  await refused({ groups: [[0], [1]], channels: [[1], [44]] }, "the channels of layer 1 must rise");
});

tinyTest("shrink --width refuses what cannot be", async (files) => {
  const refused = async (code: number, said: string, ...args: string[]) => {
    const found = await shrink(files, ...args);
    assertEquals(found.code, code, `${args}: ${found.err}`);
    assertStringIncludes(found.err, said);
  };
  await refused(2, "--layers COUNT, or how much of their width: --width RATIO");
  await refused(2, "--width must be a number above 0 up to 1", "--width", "1.2");
  await refused(2, "--width must be a number above 0 up to 1", "--width", "0");
  await refused(
    2,
    "--structure ragged: expected one of global, uniform",
    "--width",
    "0.5",
    "--structure",
    "ragged",
  );
  await refused(2, "--structure is for --width", "--layers", "2", "--structure", "uniform");
  await refused(2, "--no-compensation is for --width", "--layers", "2", "--no-compensation");
  await refused(2, "--keep-last is for --layers", "--width", "0.5", "--keep-last", "1");
  await refused(3, "is already there", "--width", "0.5", "--output", files.teacher);
});
