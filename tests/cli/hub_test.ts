/** Models of the hub where a path of a model may stand, on the command line and in runs, whose processes have no network. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
// @ts-types="../../types/std_path.d.ts"
import { join } from "@std/path";
import { merge as mergeByProgram, parseMergeRecipe } from "../../mod.ts";
import { main } from "../../src/cli/main.ts";
import { openGgufModel } from "../../src/formats/gguf/model.ts";
import { createRun, readRun } from "../../src/runs/store/run_folder.ts";
import { openStore } from "../../src/runs/store/data_folder.ts";
import { parseTask } from "../../src/runs/task/task.ts";
import { writeTinyGguf } from "../distill/tiny_gguf.ts";
import { tinyRows, writeTinyModel } from "../distill/tiny_model.ts";
import { valuesOf } from "../merge/tiny_merge.ts";
import { FakeHub, type FakeRepository } from "../hub/fake_hub.ts";
import { filesBelow, FIRST, repository, SECOND, text } from "../hub/hub_cases.ts";
import { fakeTerminal } from "./fake_terminal.ts";

async function limbeck(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const terminal = fakeTerminal();
  const code = await main(argv, terminal);
  return { code, out: terminal.out, err: terminal.err };
}

async function filesOf(folder: string): Promise<Record<string, Uint8Array>> {
  const files: Record<string, Uint8Array> = {};
  for await (const { name } of Deno.readDir(folder)) files[name] = await Deno.readFile(join(folder, name));
  return files;
}

/** A hub with two models, which the environment names, and an empty cache. */
async function withHub(fn: (hub: FakeHub, folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.realPath(await Deno.makeTempDir({ prefix: "limbeck-" }));
  const environment = ["HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN"];
  const before = environment.map((name) => Deno.env.get(name));
  try {
    await writeTinyModel(`${folder}/a`, { seed: 2, layers: 1 });
    await writeTinyModel(`${folder}/b`, { seed: 3, layers: 1 });
    const pickled = { "pytorch_model.bin": text("never fetched") };
    const repositories: Record<string, FakeRepository> = {
      "ada/a": repository({ ...await filesOf(`${folder}/a`), ...pickled }),
      "ada/b": repository({ ...await filesOf(`${folder}/b`), ...pickled }),
    };
    await using hub = new FakeHub(repositories);
    for (const name of environment) Deno.env.delete(name);
    Deno.env.set("HF_ENDPOINT", hub.url);
    Deno.env.set("HF_HOME", `${folder}/home`);
    await fn(hub, folder);
  } finally {
    environment.forEach((name, i) =>
      before[i] === undefined ? Deno.env.delete(name) : Deno.env.set(name, before[i]!)
    );
    await Deno.remove(folder, { recursive: true });
  }
}

const snapshot = (folder: string, name: string, commit = FIRST) =>
  `${folder}/home/hub/models--ada--${name}/snapshots/${commit}`;

Deno.test("models are merged by their names on the hub, as they are by their paths", () =>
  withHub(async (hub, folder) => {
    const merge = (a: string, b: string, output: string, ...flags: string[]) =>
      limbeck("merge", "--method", "linear", a, b, "--output", `${folder}/${output}`, ...flags);
    const local = await merge(`${folder}/a`, `${folder}/b`, "local");
    assertEquals(local.code, 0, local.err);
    const none = await merge("hf:ada/a", "hf:ada/b", "none", "--offline");
    assertEquals(none.code, 3);
    assertStringIncludes(none.err, "hf:ada/a: is not in the cache");
    assertEquals(hub.seen.length, 0);
    const fetched = await merge("hf:ada/a", "hf:ada/b@main", "fetched");
    assertEquals(fetched.code, 0, fetched.err);
    assertStringIncludes(fetched.err, "Fetching hf:ada/a: ");
    assertEquals(await valuesOf(`${folder}/fetched`), await valuesOf(`${folder}/local`));
    assert(!hub.downloads.some((path) => path.includes("pytorch")));
    const card = await Deno.readTextFile(`${folder}/fetched/README.md`);
    assertStringIncludes(card, "base_model:\n  - ada/a\n  - ada/b\n");
    assert(!card.includes(FIRST), card);

    const merged = await mergeByProgram(
      parseMergeRecipe({ method: "linear", models: [{ model: "hf:ada/a" }, { model: "hf:ada/b" }] }),
      `${folder}/program`,
    );
    assertEquals(merged.tensors > 0, true);
    assertEquals(await valuesOf(`${folder}/program`), await valuesOf(`${folder}/local`));

    hub.seen.length = 0;
    const recipe = { method: "linear", models: [{ model: "hf:ada/a" }, { model: "b" }] };
    await Deno.writeTextFile(`${folder}/merge.json`, JSON.stringify(recipe));
    const again = await limbeck("merge", `${folder}/merge.json`, "--output", `${folder}/again`, "--offline");
    assertEquals(again.code, 0, again.err);
    assertEquals(hub.seen.length, 0);
    assertEquals(await valuesOf(`${folder}/again`), await valuesOf(`${folder}/local`));
  }));

Deno.test("a name that is misspelt is answered by the hub, and leaves nothing behind", () =>
  withHub(async (hub, folder) => {
    const recipe = {
      teacher: { model: "hf:ada/aa" },
      student: { model: "hf:ada/b" },
      data: { train: "train.jsonl", contextLength: 32 },
      train: { steps: 1 },
    };
    await Deno.writeTextFile(`${folder}/recipe.json`, JSON.stringify(recipe));
    // What can be seen without the hub is told before it is asked.
    const early = await limbeck("validate", `${folder}/recipe.json`);
    assertStringIncludes(early.err, `data.train: ${folder}/train.jsonl: there is no such file`);
    await Deno.writeTextFile(`${folder}/train.jsonl`, tinyRows(8, 1));
    const loss = await limbeck("distill", `${folder}/recipe.json`, "--set", "objective.0.loss=none");
    assertStringIncludes(loss.err, "objective");
    assertEquals([early.code, loss.code, hub.seen.length], [3, 3, 0]);
    for (const verb of ["validate", "estimate", "distill"]) {
      const wrong = await limbeck(verb, `${folder}/recipe.json`, ...verb === "distill" ? ["--no-setup"] : []);
      assertEquals(wrong.code, 3, verb);
      assertStringIncludes(wrong.err, `hf:ada/aa: ${new URL(hub.url).host} answers 401`);
    }
    const badly = await limbeck("validate", `${folder}/recipe.json`, "--set", "teacher.model=hf:ada/..");
    assertEquals(badly.code, 3);
    assertStringIncludes(badly.err, "names no model of the hub");
    const dataset = ["--set", "teacher.model=hf:ada/a", "--set", "data.train=hf:ada/rows"];
    const data = await limbeck("validate", `${folder}/recipe.json`, ...dataset);
    assertEquals(data.code, 3);
    assertStringIncludes(data.err, `data.train: ${Deno.cwd()}/hf:ada/rows: there is no such file`);
    assertEquals((await filesBelow(`${folder}/home`)).filter((file) => file.includes("ada--aa")), []);
    const right = await limbeck("validate", `${folder}/recipe.json`, "--set", "teacher.model=hf:ada/a@main");
    assertEquals(right.code, 0, right.err);
  }));

Deno.test("a fetch is a bar on a terminal, and nothing of it is in the result", () =>
  withHub(async (hub) => {
    hub.fault = async ({ path }) => {
      if (path.startsWith("store:")) await new Promise((resolve) => setTimeout(resolve, 120));
      return undefined as unknown as Response;
    };
    const terminal = fakeTerminal(true);
    assertEquals(await main(["merge", "--method", "linear", "hf:ada/a", "--dry-run", "--json"], terminal), 0);
    assertEquals(terminal.out.trim().split("\n").map((line) => JSON.parse(line)).length, 1);
    await Deno.remove(`${Deno.env.get("HF_HOME")}`, { recursive: true });
    const shown = fakeTerminal(true);
    assertEquals(await main(["merge", "--method", "linear", "hf:ada/a", "--dry-run"], shown), 0);
    assertStringIncludes(shown.out, "Fetching hf:ada/a ");
    assertStringIncludes(shown.out, " KiB of ");
    assertStringIncludes(shown.err, "Fetching hf:ada/a: ");
  }));

Deno.test("steps of a chain read models of the hub without a network, and are done once", () =>
  withHub(async (hub, folder) => {
    const steps = [{
      ...{ name: "both", task: "merge", method: "linear" },
      models: [{ model: "hf:ada/a@main" }, { model: "hf:ada/b" }],
    }];
    await Deno.writeTextFile(`${folder}/chain.json`, JSON.stringify({ steps }));
    const chain = (...flags: string[]) =>
      limbeck("chain", `${folder}/chain.json`, "--data", `${folder}/data`, "--json", ...flags);
    const first = await chain();
    assertEquals(first.code, 0, first.err);
    const told = JSON.parse(first.out.trim().split("\n").at(-1)!);
    const run = await readRun(told.steps[0].folder);
    assertEquals((run.recipe as unknown as typeof steps[0]).models, [
      { model: snapshot(folder, "a") },
      { model: snapshot(folder, "b") },
    ]);
    const { models } = run.manifest;
    assertEquals(Object.keys(models!), ["models.0.model", "models.1.model"]);
    assertEquals([models!["models.0.model"]!.repository, models!["models.0.model"]!.commit], [
      "ada/a",
      FIRST,
    ]);
    assertEquals(
      Object.values(models!["models.1.model"]!.files).every((hash) => /^[0-9a-f]+$/.test(hash)),
      true,
    );
    const downloads = hub.downloads.length;
    const again = await chain();
    assertEquals(again.code, 0, again.err);
    assertEquals(JSON.parse(again.out.trim().split("\n").at(-1)!).steps[0].done, true);
    assertEquals(hub.downloads.length, downloads);

    // Newer versions of Python's library keep a blob once for all repositories: a link to a link.
    const blobs = `${folder}/home/hub/models--ada--b/blobs`;
    await Deno.mkdir(`${folder}/home/hub/blobs/ab`, { recursive: true });
    for await (const { name } of Deno.readDir(blobs)) {
      await Deno.rename(`${blobs}/${name}`, `${folder}/home/hub/blobs/ab/${name}`);
      await Deno.symlink(`../../blobs/ab/${name}`, `${blobs}/${name}`);
    }
    await Deno.writeTextFile(`${folder}/chain.json`, JSON.stringify({ steps: [{ ...steps[0], seed: 1 }] }));
    const shared = await chain("--offline");
    assertEquals(shared.code, 0, shared.err);
    assertEquals(hub.downloads.length, downloads);
  }));

Deno.test("a run resumes with the commit that it began with, also when the cache was emptied", () =>
  withHub(async (hub, folder) => {
    const limbeckMerge = ["merge", "--method", "linear", `${folder}/a`, `${folder}/b`];
    assertEquals((await limbeck(...limbeckMerge, "--output", `${folder}/local`)).code, 0);
    const path = snapshot(folder, "a");
    assertEquals(
      (await limbeck("merge", "--method", "linear", "hf:ada/a", "--output", `${folder}/x`)).code,
      0,
    );
    const recipe = parseTask({
      ...{ task: "merge", method: "linear" },
      models: [{ model: path }, { model: `${folder}/b` }],
    });
    const store = openStore(`${folder}/data`);
    const run = await createRun({ store, recipe });
    run.release();
    store.close();
    const [a] = [hub.repositories.get("ada/a")!];
    const other = await filesOf(`${folder}/b`);
    hub.repositories.set("ada/a", {
      commits: { ...a.commits, [SECOND]: other },
      revisions: { main: SECOND },
    });
    await Deno.remove(`${folder}/home`, { recursive: true });
    const resume = ["resume", run.id, "--data", `${folder}/data`, "--no-setup"];
    const offline = await limbeck(...resume, "--offline");
    assertEquals(offline.code, 3);
    assertStringIncludes(offline.err, `hf:ada/a@${FIRST}`);
    const resumed = await limbeck(...resume);
    assertEquals(resumed.code, 0, resumed.err);
    assertEquals(await valuesOf(`${run.folder}/merged`), await valuesOf(`${folder}/local`));
  }));

Deno.test("the permissions of the tasks suffice for it, and a GGUF file of the cache opens", () =>
  withHub(async (hub, folder) => {
    await writeTinyGguf(`${folder}/a`, `${folder}/a.gguf`, "F16");
    hub.repositories.set("ada/gguf", repository({ "a-F16.gguf": await Deno.readFile(`${folder}/a.gguf`) }));
    const root = new URL("../../", import.meta.url);
    const { tasks } = JSON.parse(await Deno.readTextFile(new URL("deno.json", root)));
    const permissions = (tasks.limbeck.command as string).match(/--allow-(?!run)\S+/g)!;
    const { code, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        ...["run", "--no-prompt", ...permissions, "src/cli/main.ts"],
        ...[
          "export",
          "--model",
          "hf:ada/gguf/a-F16.gguf",
          "--output",
          `${folder}/again.gguf`,
          "--storage",
          "f16",
        ],
      ],
      cwd: root,
      env: { HF_ENDPOINT: hub.url, HF_HOME: `${folder}/other` },
    }).output();
    assertEquals(code, 0, new TextDecoder().decode(stderr));
    const [one, two] = await Promise.all(
      ["a", "again"].map((name) => openGgufModel(`${folder}/${name}.gguf`)),
    );
    assertEquals([...two!.tensors], [...one!.tensors]);
    one!.close();
    two!.close();
  }));
