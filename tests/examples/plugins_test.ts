/** The commands of docs/plugins.md and the plugins of examples/, from a folder outside of the project, as users have them. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
// @ts-types="../../types/std_path.d.ts"
import { fromFileUrl } from "@std/path";
import type { RecipeInput } from "../../src/distill/recipe/recipe.ts";
import { main } from "../../src/cli/main.ts";
import { fakeTerminal } from "../cli/fake_terminal.ts";
import { inspectPlugins } from "../../src/runs/child/plugin_check.ts";
import { type TinyFiles, withTiny } from "../distill/tiny_model.ts";

const root = new URL("../../", import.meta.url);

/** Runs the command line in `folder`. */
async function limbeck(
  folder: string,
  ...args: string[]
): Promise<{ code: number; out: string; err: string }> {
  const main = fromFileUrl(new URL("src/cli/main.ts", root));
  const config = fromFileUrl(new URL("deno.json", root));
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "-A", `--config=${config}`, main, ...args],
    cwd: folder,
    stdin: "null",
    env: { NO_COLOR: "1" },
  }).output();
  const decoder = new TextDecoder();
  return { code, out: decoder.decode(stdout), err: decoder.decode(stderr) };
}

/** Runs the command line in this process: for what depends on no folder. */
async function told(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const terminal = fakeTerminal();
  const code = await main(argv, terminal);
  return { code, out: terminal.out, err: terminal.err };
}

/** Writes a recipe of a few steps beside the tiny model. */
async function writeRecipe(files: TinyFiles, changes: Partial<RecipeInput>): Promise<string> {
  const recipe = {
    teacher: { model: files.teacher },
    student: { model: "teacher", layers: [0, 2] },
    data: { train: files.train, heldOut: files.heldOut, contextLength: 64 },
    train: { steps: 4, tokensPerMicroBatch: 64, warmup: 0 },
    samples: { tokens: 0 },
    ...changes,
  };
  await Deno.writeTextFile(`${files.folder}/recipe.json`, JSON.stringify(recipe));
  return "recipe.json";
}

/** The files in the folder of a run, and its last training loss. */
async function finished(folder: string): Promise<{ loss: number }> {
  const lines = (await Deno.readTextFile(`${folder}/metrics.jsonl`)).trim().split("\n");
  const losses = lines.map((line) => JSON.parse(line)).map((row) => row.loss).filter((l) =>
    typeof l === "number"
  );
  assert(losses.length > 0, "no loss was logged");
  return { loss: losses.at(-1)! };
}

Deno.test("the plugins of examples/ train a tiny model from outside of the project", () =>
  withTiny(async (files) => {
    const { folder } = files;
    const names = ["bounded-kl.ts", "favourite-margin.ts", "smooth-states.ts", "row-and-column.ts"];
    for (const name of names) {
      await Deno.copyFile(new URL(`examples/plugins/${name}`, root), `${folder}/${name}`);
    }
    const recipe = await writeRecipe(files, {
      objective: [
        { loss: "cross-entropy", weight: 0.5 },
        { loss: "example/bounded-kl", weight: 0.5, options: { share: 0.2 } },
        { loss: "example/favourite-margin", weight: 0.1 },
        { loss: "example/smooth-states", weight: 0.1 },
      ],
      adapter: { type: "example/row-and-column", rank: 4 },
    });
    const run = await limbeck(
      folder,
      "distill",
      recipe,
      "--output",
      "run",
      ...names.flatMap((name) => ["--plugin", `./${name}`]),
    );
    assertEquals(run.code, 0, run.err);
    assert(Number.isFinite((await finished(`${folder}/run`)).loss));

    const exported = (...more: string[]) =>
      limbeck(folder, "export", "--run", "run", "--target", "gguf-adapter", "--output", "a.gguf", ...more);
    const unknown = await exported();
    assertEquals(unknown.code, 3, unknown.err);
    assertStringIncludes(unknown.err, "--plugin ./file.ts");
    const adapter = "./row-and-column.ts";
    const changed = await Deno.readTextFile(`${folder}/${adapter}`) + "// changed\n";
    await Deno.writeTextFile(`${folder}/changed.ts`, changed);
    const refused = await exported("--plugin", "./changed.ts");
    assertEquals(refused.code, 3, refused.err);
    assertStringIncludes(refused.err, "is no plugin that the run was made with");
    const written = await exported("--plugin", adapter, "--name", "Rows");
    assertEquals(written.code, 0, written.err);
    assert((await Deno.stat(`${folder}/a.gguf`)).size > 1000);

    const missing = await limbeck(folder, "distill", recipe, "--output", "other");
    assertEquals(missing.code, 3, missing.err);
    assertStringIncludes(missing.err, "--plugin ./file.ts");
  }));

Deno.test("a run with an adapter of a plugin that cannot be merged writes and is measured, given the plugin", () =>
  withTiny(async (files) => {
    const { folder } = files;
    const source = await Deno.readTextFile(new URL("examples/plugins/row-and-column.ts", root));
    const cut = source.slice(0, source.indexOf("  merge(weight")) + "});\n";
    await Deno.writeTextFile(`${folder}/stays-apart.ts`, cut);
    const recipe = await writeRecipe(files, {
      adapter: { type: "example/row-and-column" },
      output: { merged: false },
    });
    const plugin = ["--plugin", "./stays-apart.ts"];
    const run = await limbeck(folder, "distill", recipe, "--output", "run", ...plugin);
    assertEquals(run.code, 0, run.err);
    const told = await limbeck(folder, "generate", "--run", "./run", "--prompt", "the cat");
    assertEquals(told.code, 3);
    assertStringIncludes(told.err, 'the run\'s adapter "example/row-and-column" is of a plugin');
    assertStringIncludes(told.err, `--plugin ${folder}/stays-apart.ts`);
    const prompt = ["--prompt", "the cat", "--tokens", "4"];
    const written = await limbeck(folder, "generate", "--run", "./run", ...plugin, ...prompt);
    assertEquals(written.code, 0, written.err);
    assertStringIncludes(written.out, "the cat");
    const measured = await limbeck(folder, "eval", "--run", "./run", ...plugin, "--json");
    assertEquals(measured.code, 0, measured.err);
    const { loss } = JSON.parse(measured.out);
    const { heldOut } = JSON.parse(await Deno.readTextFile(`${folder}/run/result.json`));
    assert(Math.abs(loss - heldOut.after) < 1e-4, `${loss} for ${heldOut.after}`);
    const other = await limbeck(
      folder,
      "eval",
      "--model",
      files.teacher,
      ...plugin,
      "--dataset",
      files.train,
    );
    // A model may be of a plugin's family, so a plugin is never too much.
    assertEquals(other.code, 0, other.err);
  }));

Deno.test("the plugins of examples/ pass their checks", async () => {
  const folder = fromFileUrl(new URL("examples/plugins/", root));
  const files: string[] = [];
  for await (const { name } of Deno.readDir(folder)) files.push(folder + name);
  // What the command does, for all of them in one process; the command itself is among those of docs/plugins.md.
  const order = { files, ids: [], check: true, options: {}, timeoutSeconds: 60 };
  const found = await inspectPlugins(order);
  assertEquals(found.map(({ module }) => module), files);
  for (const { module, results } of found) {
    assert(results.length > 0, module!);
    assertEquals(results.filter(({ outcome }) => outcome === "fail"), [], module!);
  }
});

/** The commands that docs/plugins.md shows, in its order. */
async function documentedCommands(): Promise<string[][]> {
  const text = await Deno.readTextFile(new URL("docs/plugins.md", root));
  const blocks = [...text.matchAll(/```sh\n([^]*?)```/g)].map((m) => m[1]!);
  return blocks.flatMap((block) => block.trim().split("\n"))
    .filter((line) => line.startsWith("limbeck "))
    .map((line) => line.replace(/\s+#.*$/, "").split(" ").slice(1));
}

Deno.test("the commands of docs/plugins.md work in their order", () =>
  withTiny(async (files) => {
    await writeRecipe(files, {});
    await Deno.rename(`${files.folder}/recipe.json`, `${files.folder}/recipe.yaml`);
    const commands = await documentedCommands();
    assert(commands.length >= 6, `only ${commands.length} commands were found`);
    for (const command of commands) {
      const { code, out, err } = await limbeck(files.folder, ...command);
      assertEquals(code, 0, `limbeck ${command.join(" ")}\n${out}${err}`);
    }
  }));

Deno.test("limbeck plugin new overwrites nothing, and says what names it takes", () =>
  withTiny(async ({ folder }) => {
    // The others are among the commands of docs/plugins.md.
    for (const kind of ["loss", "feature-loss", "group-loss"]) {
      assertEquals((await limbeck(folder, "plugin", "new", kind, `my-${kind}`)).code, 0);
      // One tells for all: the file is written in one place.
      if (kind !== "loss") continue;
      await Deno.writeTextFile(`${folder}/my-${kind}.ts`, "mine");
      const again = await limbeck(folder, "plugin", "new", kind, `my-${kind}`);
      assertEquals(again.code, 3);
      assertStringIncludes(again.err, "is already there");
      assertEquals(await Deno.readTextFile(`${folder}/my-${kind}.ts`), "mine");
    }
    for (const wrong of [["lossy", "my-loss"], ["loss", "My Loss"]]) {
      assertEquals((await told("plugin", "new", ...wrong)).code, 2);
    }
  }));

Deno.test("limbeck plugin list and show describe plugins, in words and as JSON", async () => {
  const list = await told("plugin", "list", "--json");
  const ids = (JSON.parse(list.out) as { id: string }[]).map((p) => p.id);
  assert(ids.includes("forward-kl") && ids.includes("lora"));
  const show = await told("plugin", "show", "cross-entropy");
  assertStringIncludes(show.out, "labelSmoothing");
  const ties = await told("plugin", "show", "ties");
  assertMatch(ties.out, /\btrim\b[^]*\boption of each parent\b[^]*\bdensity\b/);
  const { options } = JSON.parse((await told("plugin", "show", "cross-entropy", "--json")).out);
  assertEquals(options.properties.labelSmoothing.default, 0);
  const wrong = await told("plugin", "show", "forward-lk");
  assertEquals(wrong.code, 3);
  assertStringIncludes(wrong.err, 'did you mean "forward-kl"?');
});
