/** What users are told when something they give is wrong, from the command line down: file, reason, remedy and exit code. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { main } from "../../src/cli/main.ts";
import { FlagReader } from "../../src/cli/command.ts";
import { Output } from "../../src/cli/terminal/output.ts";
import { StoppedError } from "../../src/cli/terminal/stoppable_work.ts";
import { watchRun } from "../../src/cli/terminal/watch_run.ts";
import { checkHostMemory } from "../../src/distill/run/host_memory.ts";
import { parseRecipe } from "../../src/distill/recipe/parse.ts";
import { DeviceError } from "../../src/base/errors.ts";
import { driverEnvironment } from "../../src/runs/child/command.ts";
import { createRun } from "../../src/runs/store/run_folder.ts";
import { TINY_VOCABULARY, type TinyFiles, withTiny, writeTinyModel } from "../distill/tiny_model.ts";
import { fakeEntry, fakeRecipe, withFolder } from "../runs/fake_run.ts";
import { type Breakage, json, replaced, sharded, weights, writeBrokenModel } from "./broken_models.ts";
import { fakeTerminal } from "./fake_terminal.ts";
import { testStore } from "../runs/test_store.ts";
import { isTaken } from "../../src/formats/files.ts";

interface Said {
  code: number;
  out: string;
  err: string;
}

async function limbeck(...argv: string[]): Promise<Said> {
  const terminal = fakeTerminal();
  const code = await main(argv, terminal);
  return { code, out: terminal.out, err: terminal.err };
}

/** Writes a recipe for the tiny model, with changes, and returns its path. */
async function recipeFile(
  { folder, ...files }: TinyFiles,
  changes: Record<string, object> = {},
): Promise<string> {
  const recipe: Record<string, object> = {
    teacher: { model: files.teacher },
    student: { model: "teacher", layers: [0, 2] },
    data: { train: files.train, heldOut: files.heldOut, contextLength: 64 },
    train: { steps: 4, warmup: 0, tokensPerMicroBatch: 64 },
    samples: { tokens: 4 },
  };
  for (const [section, fields] of Object.entries(changes)) {
    recipe[section] = Array.isArray(fields) ? fields : { ...recipe[section], ...fields };
  }
  await Deno.writeTextFile(`${folder}/recipe.json`, JSON.stringify(recipe));
  return `${folder}/recipe.json`;
}

/** Asserts that an error says all of `parts` and what to do. */
function assertTold({ code, err }: Said, exitCode: number, ...parts: string[]): void {
  assertEquals(code, exitCode, err);
  for (const part of parts) assertStringIncludes(err, part);
}

const Q = "model.layers.0.self_attn.q_proj.weight";

/** What is broken, and what the error must name. */
const MODELS: Record<string, [breakage: Breakage, ...said: string[]]> = {
  "without config.json": [(f) => Deno.remove(`${f}/config.json`), "no config.json", "hint: Give the folder"],
  "with half a config.json": [replaced("config.json", '{"a":'), "/config.json: is not valid JSON"],
  "with two rope bases": [
    json("config.json", (c) => c.rope_parameters = { rope_theta: 500000 }),
    "/config.json: the rope base is given twice and differs: 10000 and 500000",
    "hint: Keep the one",
  ],
  "of another architecture": [
    json(
      "config.json",
      (c) => Object.assign(c, { architectures: ["Qwen4ForCausalLM"], model_type: "qwen4" }),
    ),
    "/config.json: ",
    'Qwen4ForCausalLM"] is not supported; did you mean "Qwen2ForCausalLM"?',
    "hint: Supported architectures",
  ],
  "without weights": [(f) => Deno.remove(`${f}/model.safetensors`), "there are no weights", "hint: "],
  "with weights cut short": [
    (f) => Deno.truncate(`${f}/model.safetensors`, 9000),
    "/model.safetensors: the file is cut short",
    "at 9000",
    "fetch or write it again",
  ],
  "with an empty weight file": [replaced("model.safetensors", ""), "/model.safetensors: has 0 bytes"],
  "with a Git LFS pointer for weights": [
    replaced("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
    "/model.safetensors: is a Git LFS pointer",
    "git lfs pull",
  ],
  "with a Git LFS pointer for a tokenizer": [
    replaced("tokenizer.json", "version https://git-lfs.github.com/spec/v1\n"),
    "/tokenizer.json: is a Git LFS pointer",
  ],
  "with a web page for weights": [
    replaced("model.safetensors", "<!DOCTYPE html><html>Sign in</html>"),
    "/model.safetensors: is a web page",
    "download it again",
  ],
  "with a tensor of the wrong shape": [
    weights(({ header }) => header[Q]!.shape.reverse() && (header[Q]!.shape = [16, 64])),
    `${Q} has shape [16, 64], expected [32, 32]`,
  ],
  "with a tensor of the wrong dtype": [
    weights(({ header }) => header[Q]!.dtype = "I32"),
    `${Q} has dtype I32, expected one of F32`,
  ],
  "without a tensor": [
    weights(({ header }) => {
      header["another"] = header[Q]!;
      delete header[Q];
    }),
    `${Q} is missing`,
    "another is not part of this model",
  ],
  "with two tensors in one place": [
    weights(({ header }) => {
      const [first, second] = Object.keys(header);
      header[second!] = header[first!]!;
    }),
    "overlaps the tensor before it",
  ],
  "with a shard missing": [
    sharded((_, folder) => Deno.remove(`${folder}/part-1.safetensors`)),
    "model.safetensors.index.json: these shards are missing: part-1.safetensors",
  ],
  "with a shard outside of the folder": [
    sharded((map) => Object.keys(map).forEach((name) => map[name] = `../${map[name]}`)),
    'is mapped to "../part-0.safetensors"',
    "in the same folder",
  ],
  "with a shard that is a link out of the folder": [
    sharded(async (_, folder) => {
      await Deno.rename(`${folder}/part-1.safetensors`, `${folder}-part.safetensors`);
      await Deno.symlink(`${folder}-part.safetensors`, `${folder}/part-1.safetensors`);
    }),
    "part-1.safetensors: is a link out of the model folder",
  ],
  "without a tokenizer": [(f) => Deno.remove(`${f}/tokenizer.json`), "there is no tokenizer.json", "hint: "],
  "with a tokenizer of an unknown kind": [
    json("tokenizer.json", (t) => t.model.type = "Morse"),
    '/tokenizer.json: model.type is "Morse"',
  ],
  "with fewer rows than tokens": [
    async (folder) => {
      await Deno.remove(folder, { recursive: true });
      await writeTinyModel(folder, { vocabularySize: TINY_VOCABULARY - 8 });
    },
    `the tokenizer has ids up to ${TINY_VOCABULARY - 1}, but the embedding has only ${
      TINY_VOCABULARY - 8
    } rows`,
  ],
};

Deno.test("validate names what is wrong with a model, the file and what to do", () =>
  withTiny(async (files) => {
    const model = `${files.folder}/broken`;
    const recipe = await recipeFile(files, { teacher: { model } });
    for (const [what, [breakage, ...said]] of Object.entries(MODELS)) {
      await writeBrokenModel(model, breakage);
      const told = await limbeck("validate", recipe);
      assertEquals(told.code, 3, `a model ${what}: ${told.err}`);
      for (const part of [model, ...said]) assertStringIncludes(told.err, part, `a model ${what}`);
      await Deno.remove(model, { recursive: true });
    }
    await Deno.mkdir(model);
    assertTold(await limbeck("validate", recipe), 3, `${model}: the folder is empty`, "hint: ");
  }));

Deno.test("validate names every path that is not there, with its field", () =>
  withTiny(async (files) => {
    const recipe = await recipeFile(files, { teacher: { model: "./none" }, data: { train: "./no.jsonl" } });
    for (const verb of ["validate", "preview", "estimate", "distill"]) {
      assertTold(
        await limbeck(verb, recipe),
        3,
        `teacher.model: ${files.folder}/none: there is no such file or folder`,
        "data.train: ",
        "hint: ",
      );
    }
  }));

Deno.test("validate says how two vocabularies differ", () =>
  withTiny(async (files) => {
    const student = `${files.folder}/student`;
    const recipe = await recipeFile(files, { student: { model: student, layers: [0] } });
    await writeBrokenModel(
      student,
      json("tokenizer.json", ({ model: { vocab } }) => [vocab.a, vocab.b] = [vocab.b, vocab.a]),
    );
    assertTold(
      await limbeck("validate", recipe),
      3,
      'is "a" in',
      `and "b" in ${student}/tokenizer.json`,
      "choose models of one family",
    );
    await Deno.remove(student, { recursive: true });
    await writeTinyModel(student, { vocabularySize: TINY_VOCABULARY + 3 });
    const told = await limbeck("validate", recipe);
    assertEquals(told.code, 0, told.err);
    assertStringIncludes(
      told.err,
      `heads of teacher and student have ${TINY_VOCABULARY} and ${TINY_VOCABULARY + 3} rows`,
    );
  }));

Deno.test("validate warns of a server's key that is not there, which another machine may have", () =>
  withTiny(async (files) => {
    const server = { url: "http://127.0.0.1:1/v1", model: "m", keyVariable: "LIMBECK_KEY_OF_NOBODY" };
    const recipe = await recipeFile(files, {
      teacher: { model: "server", server, cache: { topK: 4 } },
      student: { model: files.teacher },
    });
    const told = await limbeck("validate", recipe);
    assertEquals(told.code, 0, told.err);
    assertStringIncludes(
      told.err,
      "warning: recipe teacher.server.keyVariable: LIMBECK_KEY_OF_NOBODY: is not set",
    );
    assertStringIncludes(told.out, "The recipe is valid.");
    const several = await recipeFile(files, {
      teacher: {
        combine: "tag",
        teachers: [{ model: files.teacher }, { model: "server", server, cache: { topK: 4 } }],
      },
      student: { model: files.teacher },
    });
    const rows = '{"text": "a cat", "teacher": "m"}\n';
    for (const path of [files.train, files.heldOut]) await Deno.writeTextFile(path, rows);
    assertStringIncludes(
      (await limbeck("validate", several)).err,
      "warning: recipe teacher.teachers.1.server.keyVariable: LIMBECK_KEY_OF_NOBODY: is not set",
    );
  }));

Deno.test("what was stopped is told as no error", () => {
  const terminal = fakeTerminal();
  const out = new Output(terminal, false);
  assertEquals(out.error(new StoppedError("stopped; what is finished stays"), false), 130);
  assertEquals(terminal.err, "stopped; what is finished stays\n");
});

Deno.test("validate names the file and the line of faulty data", () =>
  withTiny(async (files) => {
    const recipe = await recipeFile(files);
    const cases: [text: string, ...said: string[]][] = [
      ["", "the dataset is empty", "hint: Write one JSON object a line"],
      ['{"text":"a"}\n{"text":\n', "train.jsonl:2: not valid JSON"],
      [
        '{"text":"a"}\n{"txt":"b"}\n{"text":""}\n',
        "2 faulty lines",
        'keys are: "txt"',
        "train.jsonl:3: text is empty",
      ],
      [
        '[\n{"text":"a"},\n{"text":"b"}\n]\n',
        "train.jsonl:1: expected a JSON object, found a list",
        "its name ends with .json",
      ],
    ];
    for (const [text, ...said] of cases) {
      await Deno.writeTextFile(files.train, text);
      assertTold(await limbeck("validate", recipe), 3, files.train, ...said);
    }
    await Deno.remove(files.train);
    await Deno.mkdir(files.train);
    assertTold(await limbeck("validate", recipe), 3, "this is a folder");
  }));

Deno.test("rows that are cut, dropped, split, without a target or seen in training are counted and shown", () =>
  withTiny(async (files) => {
    const long = JSON.stringify({ text: "the cat sat on a mat and ran home to see his sun" });
    const noTarget = JSON.stringify({ prompt: "the cat ".repeat(20), completion: "sat" });
    const short = JSON.stringify({ text: "a cat" });
    await Deno.writeTextFile(files.train, `${long}\n${short}\n${long}\n${noTarget}\n`);
    await Deno.writeTextFile(files.heldOut, `${short}\n`);
    const recipe = await recipeFile(files, { data: { contextLength: 16 } });
    const choices: [tooLong: string, said: string][] = [
      ["cut", "3 of 4 training rows cut: longer than the context length of 16 tokens; the longest has"],
      ["drop", "3 of 4 training rows left out"],
      ["split", "3 of 4 training rows split into several"],
    ];
    for (const [tooLong, said] of choices) {
      const told = await limbeck("validate", recipe, "--set", `data.tooLong=${tooLong}`, "--json");
      assertTold(told, 0, said, "1 of 1 held-out rows are also in the training data");
      const { warnings, train } = JSON.parse(told.out);
      assertStringIncludes(warnings[0].message, said);
      assertEquals(train.cut + train.dropped + train.split, 3);
    }
    assertStringIncludes(
      (await limbeck("validate", recipe)).err,
      "1 training sample left out: no token is learnt",
    );
    assertTold(await limbeck("preview", recipe), 0, "3 of 4 training rows cut");
    assertTold(
      await limbeck("validate", recipe, "--set", "data.tooLong=refuse"),
      3,
      "3 samples are longer than the context of 16 tokens",
      "train.jsonl:1:",
      "set data.tooLong to cut, drop or split",
    );
  }));

Deno.test("validate names every loss, adapter and option there is not, with its path in the recipe", () =>
  withTiny(async (files) => {
    const recipe = await recipeFile(files, {
      objective: [{ loss: "crossentropy" }, { loss: "forward-kl", options: { beta: 1 } }],
      adapter: { type: "lore" },
    });
    const told = await limbeck("validate", recipe);
    assertTold(
      told,
      3,
      "3 problems in the recipe",
      'objective.0.loss: there is no loss "crossentropy"',
      'Did you mean "cross-entropy"?',
      'objective.1.options.beta: "forward-kl" has no such option',
      'adapter.type: there is no adapter "lore"',
    );
  }));

Deno.test("plugins that throw, export nothing or break the contract are named", () =>
  withTiny(async (files) => {
    const recipe = await recipeFile(files);
    const plugins: Record<string, [source: string, ...said: string[]]> = {
      "throws.ts": ['throw new Error("boom");', "the plugin throws while it is loaded: boom"],
      "syntax.ts": ["export default {", "the plugin throws while it is loaded"],
      "nothing.ts": ["export const x = 1;", "exports no plugin", "defineDivergence"],
      "old.ts": [
        'export default { kind: "divergence", id: "me/old", version: "1.0.0", contract: 0 };',
        'plugin "me/old": it was written for contract 0',
      ],
      "half.ts": [
        'export default { kind: "divergence", id: "me/half", version: "1.0.0", contract: 1 };',
        'plugin "me/half": it is no loss, adapter, merge or family',
      ],
    };
    for (const [name, [source, ...said]] of Object.entries(plugins)) {
      const path = `${files.folder}/${name}`;
      await Deno.writeTextFile(path, source);
      assertTold(await limbeck("validate", recipe, "--plugin", path), 3, ...said);
    }
    // In a run's own process too, whose permissions are other ones.
    const path = `${files.folder}/throws.ts`;
    const output = `${files.folder}/run`;
    const told = await limbeck(
      "distill",
      recipe,
      "--plugin",
      path,
      "--output",
      output,
      "--data",
      files.folder,
      "--no-setup",
    );
    assertTold(told, 3, `${path}: the plugin throws while it is loaded: boom`);
    assertEquals(await isTaken(output), false, "nothing is left");
    const missing = await limbeck(
      "distill",
      recipe,
      "--plugin",
      `${path}x`,
      "--output",
      `${output}2`,
      "--data",
      files.folder,
      "--no-setup",
    );
    assertTold(missing, 3, "throws.tsx: the plugin cannot be read");
    assertEquals(await isTaken(`${output}2`), false, "nothing is made");
  }));

Deno.test("a run whose inputs do not do leaves no folder and is not listed", () =>
  withTiny(async (files) => {
    const output = `${files.folder}/run`;
    const distil = async (merged: boolean) =>
      await limbeck(
        "distill",
        await recipeFile(files, { adapter: { type: "instance-gated-lora" }, output: { merged } }),
        ...["--output", output, "--data", files.folder, "--no-setup"],
      );
    const unmergeable = await distil(true);
    assertTold(
      unmergeable,
      3,
      'output.merged: is true, but the adapter "instance-gated-lora" cannot be merged',
    );
    assertEquals([unmergeable.out, await isTaken(output)], ["", false], "it is said before anything is made");
    assertTold(await distil(false), 3, "samples have no prompt", "train.jsonl:2");
    assertEquals(await isTaken(output), false, "nothing is left");
    assertEquals(JSON.parse((await limbeck("runs", "--data", files.folder, "--json")).out), []);
  }));

Deno.test("weights that are no numbers end a run that then leaves no model, and every line of --json parses", () =>
  withTiny(async (files) => {
    const model = `${files.folder}/nan`;
    await writeBrokenModel(
      model,
      weights(({ header, data }) =>
        new DataView(data.buffer).setFloat32(header[Q]!.data_offsets[0] + 40, NaN, true)
      ),
    );
    const output = `${files.folder}/run`;
    const recipe = await recipeFile(files, { teacher: { model } });
    const { code, out } = await limbeck(
      "distill",
      recipe,
      "--output",
      output,
      "--data",
      files.folder,
      "--no-setup",
      "--json",
    );
    assertEquals(code, 3);
    const lines = out.trim().split("\n").map((line) => JSON.parse(line));
    assertStringIncludes(
      lines.at(-1).error.message,
      `1 values of tensor ${Q} (the first at 10) are not finite`,
    );
    assertEquals(lines.at(-2).type, "outcome");
    const left = [...Deno.readDirSync(output)].map(({ name }) => name);
    assertEquals(left.filter((name) => /^(base|adapter|merged|checkpoints)|tmp$/.test(name)), []);
  }));

Deno.test("estimate refuses what does not fit, with the numbers and what to turn", () =>
  withTiny(async (files) => {
    const recipe = await recipeFile(files);
    const tight = await limbeck("estimate", recipe, "--set", "limits.gpuBytes=250000");
    assertTold(
      tight,
      4,
      "limits.gpuBytes allows 244.1 KiB (250000 bytes)",
      "activations",
      "Lower train.tokensPerMicroBatch and data.contextLength",
      "or raise limits.gpuBytes",
    );
    assertMatch(tight.err, /the run needs [\d.]+ KiB on the GPU \(\d+ bytes: teacher weights/);
    const tiny = await limbeck("estimate", recipe, "--set", "limits.gpuBytes=1000");
    assertTold(tiny, 4, "The weights alone take", "choose smaller models");
    // Of a wider model fewer tokens are too large for one buffer, and sooner planned.
    const wide = `${files.folder}/wide`;
    await writeTinyModel(wide, { hiddenSize: 256 });
    const large = ["--set", `teacher.model=${wide}`, "--set", "train.tokensPerMicroBatch=2100000"];
    const huge = await limbeck("estimate", recipe, ...large);
    assertTold(huge, 4, "bytes; a buffer of this device holds at most", "Lower train.tokensPerMicroBatch");
  }));

Deno.test("checkHostMemory() refuses what the machine's memory cannot hold", () => {
  const recipe = parseRecipe({ teacher: { model: "a" }, student: { model: "b" }, data: { train: "c" } });
  const memory = (total: number) => ({ byCategory: new Map([["activations", total]]), total });
  checkHostMemory(memory(1000), recipe, false);
  const error = assertThrowsDevice(() => checkHostMemory(memory(1e18), recipe, true));
  assertStringIncludes(error.message, "the machine's free memory allows");
  assert(!error.hint!.includes("activationCheckpointing"), "it is on already");
});

function assertThrowsDevice(fn: () => void): DeviceError {
  try {
    fn();
  } catch (error) {
    assert(error instanceof DeviceError);
    return error;
  }
  throw new Error("nothing was thrown");
}

Deno.test("an output folder that is taken, a file or not to be made is refused, and keeps what it holds", () =>
  withFolder(async (folder) => {
    const recipe = { ...fakeRecipe(folder), output: { folder: `${folder}/out dir`, merged: true } };
    await Deno.mkdir(recipe.output.folder);
    // Whoever was killed at the very beginning leaves no more than a lock.
    await Deno.writeTextFile(`${recipe.output.folder}/run.lock`, "");
    const run = await createRun({ store: testStore(folder), recipe });
    run.release();
    for (const name of ["events.jsonl", "a", "z"]) await Deno.writeTextFile(`${run.folder}/${name}`, "");
    const taken = await assertRejects(
      () => createRun({ store: testStore(folder), recipe }),
      "a run already lives in this output folder",
    );
    assertStringIncludes((taken as { hint?: string }).hint!, `limbeck runs rm '${folder}/out dir'`);
    await Deno.remove(`${run.folder}/manifest.json`);
    await assertRejects(
      () => createRun({ store: testStore(folder), recipe }),
      Error,
      "the output folder is not empty",
    );
    assert(await isTaken(`${run.folder}/recipe.json`));
    recipe.output.folder = `${folder}/data/train.jsonl/run`;
    await assertRejects(
      () => createRun({ store: testStore(folder), recipe }),
      Error,
      "the output folder cannot be made",
    );
  }));

Deno.test("what cannot be written is refused by name, and a file that is there is kept", () =>
  withTiny(async ({ folder, teacher, train }) => {
    const nowhere = `${folder}/none`;
    const generate = ["generate", "--model", teacher, "--no-setup", "--output"];
    assertTold(await limbeck("init", `${nowhere}/my.yaml`), 3, `${nowhere}/my.yaml: cannot be written`);
    assertTold(
      await limbeck(...generate, `${nowhere}/a.jsonl`),
      3,
      `${nowhere}/a.jsonl: cannot be written: there is no such folder`,
      "hint: Choose another place",
    );
    assertTold(await limbeck(...generate, `${train}/a.jsonl`), 3, "a part of its path is a file");
    const before = await Deno.readTextFile(train);
    assertTold(await limbeck(...generate, train), 3, `${train}: is already there`, "--force");
    assertEquals(await Deno.readTextFile(train), before);
  }));

Deno.test("numbers out of bounds are wrong usage, all told at once", async () => {
  const told = await limbeck("generate", "--model", "m", "--count", "0", "--top-p", "2", "--temperature=-1");
  assertTold(
    told,
    2,
    '--count must be a whole number from 1, not "0"',
    '--top-p must be a number above 0 up to 1, not "2"',
    '--temperature must be a number from 0, not "-1"',
  );
});

Deno.test("a damaged run is told apart from none, and says how to mend it", () =>
  withFolder(async (folder) => {
    const run = await createRun({ recipe: fakeRecipe(folder), store: testStore(folder) });
    run.release();
    await Deno.writeTextFile(`${run.folder}/events.jsonl`, '{"seq":1}\ngarbage\n{"seq":3}\n');
    assertEquals((await limbeck("runs", "show", run.folder)).code, 0, "the store knows better");
    await run.store.remove(run.id);
    assertTold(await limbeck("runs", "show", run.folder), 3, "line 2 is not JSON", "Delete that line");
    assertEquals(JSON.parse((await limbeck("runs", "--data", folder, "--json")).out), []);
    await Deno.writeTextFile(`${run.folder}/manifest.json`, "{}");
    assertTold(
      await limbeck("resume", run.folder, "--data", folder, "--no-setup"),
      3,
      "is not the manifest of a run",
    );
    await Deno.remove(`${run.folder}/manifest.json`);
    assertTold(
      await limbeck("resume", run.folder, "--data", folder, "--no-setup"),
      3,
      `${run.folder}: is no run`,
    );
    assertTold(await limbeck("runs", "--data", `${folder}/data/train.jsonl`), 3, "cannot be read");
  }));

Deno.test("a run whose model or data are gone is not resumed", () =>
  withFolder(async (folder) => {
    const run = await createRun({ recipe: fakeRecipe(folder), store: testStore(folder) });
    run.release();
    await Deno.remove(`${folder}/data/train.jsonl`);
    assertTold(await limbeck("resume", run.folder, "--data", folder, "--no-setup"), 3, "data.train: ");
    assertEquals(await isTaken(`${run.folder}/events.jsonl`), false, "no attempt is made");
  }));

Deno.test("a report that cannot be written hides neither the result nor the error of a run", () =>
  withFolder(async (folder) => {
    const run = await createRun({ recipe: fakeRecipe(folder), store: testStore(folder) });
    await Deno.mkdir(`${run.folder}/report.html`);
    const terminal = fakeTerminal();
    const out = new Output(terminal, false);
    const options = { resume: false, entry: fakeEntry };
    assertEquals(await watchRun(run, options, { args: [], flags: new FlagReader({}), out }), 0);
    assertStringIncludes(terminal.err, "the report could not be written");
    assertStringIncludes(terminal.out, "student after");
    assert(!terminal.out.includes("report.html"));
  }));

Deno.test({
  name: "a full disk under stdout is an error like any other",
  ignore: Deno.build.os !== "linux",
  async fn() {
    const terminal = fakeTerminal();
    terminal.stdout = (text) => Deno.writeTextFileSync("/dev/full", text);
    assertEquals(await main(["runs", "--data", "/none", "--json"], terminal), 1);
    assertStringIncludes(terminal.err, "the disk is full");
  },
});

Deno.test("driverEnvironment() leaves OpenGL out unless the user chose", () => {
  assertEquals(driverEnvironment("/tmp", new Map()).DENO_WEBGPU_BACKEND, "vulkan,metal,dx12");
  const chosen = new Map([["DENO_WEBGPU_BACKEND", "gl"]]);
  assertEquals(driverEnvironment("/tmp", chosen).DENO_WEBGPU_BACKEND, undefined);
});

Deno.test("paths are relative to where the user is, though tasks run in the project's folder", () =>
  withFolder(async (folder) => {
    const root = new URL("../../", import.meta.url);
    const args = [
      "run",
      "--no-prompt",
      "--allow-env",
      "--allow-read",
      "--allow-write",
      "src/cli/main.ts",
      "init",
    ];
    const { code, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [...args, "mine.yaml"],
      cwd: root,
      env: { INIT_CWD: folder },
    }).output();
    assertEquals(code, 0, new TextDecoder().decode(stderr));
    assert(await isTaken(`${folder}/mine.yaml`));
  }));
