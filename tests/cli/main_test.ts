// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertStringIncludes } from "@std/assert";
import { main } from "../../src/cli/main.ts";
import { commentedRecipe } from "../../src/cli/verbs/commented_recipe.ts";
import { loadRecipe } from "../../src/distill/recipe/file.ts";
import { parseRecipe } from "../../src/distill/recipe/parse.ts";
import { fakeTerminal } from "./fake_terminal.ts";

const VERBS = [
  "distill",
  "resume",
  "compare",
  "init",
  "validate",
  "preview",
  "estimate",
  "tune",
  "eval",
  "generate",
  "export",
  "plugin",
  "runs",
  "doctor",
];

async function limbeck(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const terminal = fakeTerminal();
  const code = await main(argv, terminal);
  return { code, out: terminal.out, err: terminal.err };
}

async function inFolder(fn: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "limbeck-" });
  try {
    await fn(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("main() lists every verb, and each has help with examples", async () => {
  const { code, out } = await limbeck("--help");
  assertEquals(code, 0);
  for (const verb of VERBS) {
    assertStringIncludes(out, `  ${verb} `);
    const help = await limbeck(verb, "--help");
    assertEquals([help.code, help.err], [0, ""]);
    assertStringIncludes(help.out, "Examples:\n  limbeck " + verb);
    assertStringIncludes(help.out, "--json");
    assertEquals((await limbeck("help", verb)).out, help.out);
  }
});

Deno.test("main() ends with 2 and a suggestion when the command line is wrong", async () => {
  const cases: [string[], string][] = [
    [["distil"], 'did you mean "distill"?'],
    [["distill", "--sett", "a=b"], 'there is no flag --sett; did you mean "--set"?'],
    [["distill", "a.yaml", "b.yaml"], "unexpected argument: b.yaml"],
    [["distill", "--set"], "--set needs a value"],
    [["distill", "--watchdog", "soon"], '--watchdog must be a number, not "soon"'],
    [["resume"], "an argument is missing: RUN"],
    [["runs", "sho"], 'did you mean "show"?'],
    [["plugin", "chek"], 'did you mean "check"?'],
    [["plugin", "check"], "takes an id or a file"],
    [["plugin", "new", "los", "my-loss"], 'did you mean "loss"?'],
    [["runs", "rm"], "name a run"],
    [["generate"], "name one model"],
    [["generate", "--model", "a", "--tokens", "1.5"], "--tokens must be a whole number"],
    [["export", "--model", "a"], "--output"],
    [["export", "--run", "a", "--output", "b", "--target", "gguf-adaptor"], "--target must be one of gguf,"],
    [["export", "--run", "a", "--output", "b", "--target", "gguf-adapter"], "must end in .gguf"],
    [
      ["export", "--run", "a", "--output", "b", "--target", "mlx", "--name", "c"],
      "--name is for --target gguf",
    ],
    [["export", "--model", "a", "--output", "b", "--target", "mlx"], "name it with --run"],
  ];
  for (const [argv, message] of cases) {
    const { code, err } = await limbeck(...argv);
    assertEquals(code, 2, argv.join(" "));
    assertStringIncludes(err, message);
  }
  assertEquals((await limbeck()).code, 2);
});

Deno.test("main() reports every wrong flag at once", async () => {
  const { err } = await limbeck("distill", "--foo", "--watchdog", "x", "a", "b");
  for (const text of ["--foo", "--watchdog must be", "unexpected argument: b"]) {
    assertStringIncludes(err, text);
  }
});

Deno.test("main() ends with 3 and prints the hint when the input is bad, as JSON with --json", () =>
  inFolder(async (folder) => {
    const missing = await limbeck("distill", `${folder}/none.yaml`);
    assertEquals([missing.code, missing.out], [3, ""]);
    assertStringIncludes(missing.err, "there is no such file");
    assertStringIncludes(missing.err, "hint: ");
    await Deno.writeTextFile(
      `${folder}/bad.yaml`,
      "teacher: {model: a}\nstudent: {modell: b}\ndata: {train: c}\n",
    );
    const json = await limbeck("validate", `${folder}/bad.yaml`, "--json");
    assertEquals(json.code, 3);
    const { error } = JSON.parse(json.out);
    assertEquals(error.code, "bad_recipe");
    assertStringIncludes(error.message, 'student.modell: there is no such field; did you mean "model"?');
  }));

Deno.test("init writes a recipe that loads with the defaults, and replaces a file only with --force", () =>
  inFolder(async (folder) => {
    const path = `${folder}/my.yaml`;
    assertEquals((await limbeck("init", path)).code, 0);
    const loaded = await loadRecipe(path);
    const plain = parseRecipe({
      teacher: { model: `${folder}/teacher` },
      student: { model: `${folder}/student` },
      data: { train: `${folder}/train.jsonl` },
    });
    assertEquals(loaded, plain);
    assertEquals((await limbeck("init", path)).code, 3);
    assertEquals((await limbeck("init", path, "--force")).code, 0);
    assertEquals((await limbeck("init", `${folder}/none/my.yaml`)).code, 3);
  }));

Deno.test("every commented field of init's recipe is right when its # is taken away", () => {
  const text = commentedRecipe().split("\n").map((line) =>
    line.replace(/^(\s*)# (\w+): (.*)$/, (all, indent, name, value) =>
      // Prose may have a colon too; fields are the lines that a description stands above.
      value === "" || / /.test(name) ? all : `${indent}${name}: ${value}`)
  ).join("\n");
  return inFolder(async (folder) => {
    // One of these two at a time says which layers stay.
    const load = async (absent: "layers" | "shape") => {
      const written = text.replace(new RegExp(`^ +${absent}: .*\n`, "m"), "");
      assertEquals(written.split("\n").length, text.split("\n").length - 1);
      await Deno.writeTextFile(`${folder}/all.yaml`, written);
      return await loadRecipe(`${folder}/all.yaml`);
    };
    const { student, output, limits } = await load("shape");
    assertEquals([student.layers, output.folder, limits.gpuBytes], [[0, 1, 3, 5], `${folder}/my-run`, 8e9]);
    assertEquals((await load("layers")).student.shape, `${folder}/shape.json`);
  });
});

Deno.test("runs lists nothing where there are no runs", () =>
  inFolder(async (folder) => {
    assertStringIncludes((await limbeck("runs", "--data", folder)).out, "There are no runs");
    assertEquals(JSON.parse((await limbeck("runs", "--data", folder, "--json")).out), []);
    assertEquals((await limbeck("runs", "show", "last", "--data", folder)).code, 3);
  }));

Deno.test("the command line works as a process with the permissions of its task", async () => {
  const root = new URL("../../", import.meta.url);
  const { tasks } = JSON.parse(await Deno.readTextFile(new URL("deno.json", root)));
  const flags = tasks.limbeck.command.match(/--allow-(?:env|sys)=\S+/g);
  const args = [
    "run",
    "--no-prompt",
    ...flags,
    "--allow-read",
    "--allow-write",
    "src/cli/main.ts",
    "--version",
  ];
  const { code, stdout } = await new Deno.Command(Deno.execPath(), { args, cwd: root }).output();
  assertEquals(code, 0);
  assertStringIncludes(new TextDecoder().decode(stdout), "limbeck 0.");
});
