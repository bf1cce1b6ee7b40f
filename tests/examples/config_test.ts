/** Plugins by configuration, from a folder outside of the project, as users have them. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
// @ts-types="../../types/std_path.d.ts"
import { fromFileUrl } from "@std/path";
import type { RunEvent } from "../../src/distill/run/events.ts";
import { describeConfig } from "../../src/runs/child/inside/config_entry.ts";
import { readEvents } from "../../src/runs/store/event_log.ts";
import { pluginSource } from "../../src/runs/child/plugin_source.ts";
import { adoptRun, openRun, readRun, takeRun } from "../../src/runs/store/run_folder.ts";
import { InputError } from "../../src/base/errors.ts";
import { type TinyFiles, withTiny } from "../distill/tiny_model.ts";
import { serveNpm } from "./npm_registry.ts";
import { testStore } from "../runs/test_store.ts";
import { exists } from "../../src/formats/files.ts";

const root = new URL("../../", import.meta.url);

/** Runs the command line in `folder`. */
async function limbeck(
  folder: string,
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<{ code: number; out: string; err: string }> {
  const main = fromFileUrl(new URL("src/cli/main.ts", root));
  const config = fromFileUrl(new URL("deno.json", root));
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "-A", `--config=${config}`, main, ...args],
    cwd: folder,
    stdin: "null",
    env: { NO_COLOR: "1", ...env },
  }).output();
  const decoder = new TextDecoder();
  return { code, out: decoder.decode(stdout), err: decoder.decode(stderr) };
}

/** A divergence as a module; `imported` is where it gets the contract from. */
function lossModule(id: string, imported = "@limbeck/limbeck/plugin"): string {
  return `import { z } from "zod";
    import { CONTRACT_VERSION, defineDivergence, logAddExp } from "${imported}";
    export default defineDivergence({
      id: "${id}", version: "1.0.0", contract: CONTRACT_VERSION, options: z.strictObject({}),
      term: ({ p, logP, logQ }) => p.mul(logP.sub(logAddExp(logP, logQ))),
    });`;
}

/** Writes a recipe of two steps with these losses of plugins beside the tiny model. */
async function writeRecipe(files: TinyFiles, ...losses: string[]): Promise<void> {
  const recipe = {
    teacher: { model: files.teacher },
    student: { model: "teacher", layers: [0, 2] },
    data: { train: files.train, heldOut: files.heldOut, contextLength: 64 },
    objective: [{ loss: "cross-entropy" }, ...losses.map((loss) => ({ loss }))],
    train: { steps: 2, tokensPerMicroBatch: 64, warmup: 0 },
    samples: { tokens: 0 },
    output: { merged: false },
  };
  await Deno.writeTextFile(`${files.folder}/recipe.json`, JSON.stringify(recipe));
}

/** Which file or package the run says that its plugins come from. */
function origins(events: readonly RunEvent[]): string[] {
  return events.flatMap((event) =>
    event.type === "stage" && event.stage === "plugins" ? [event.message] : []
  );
}

Deno.test("limbeck.config.ts gives plugins of its own and of files to every verb that takes plugins", () =>
  withTiny(async (files) => {
    const { folder } = files;
    await writeRecipe(files, "me/own", "me/other");
    await Deno.mkdir(`${folder}/losses`);
    await Deno.writeTextFile(
      `${folder}/losses/other.ts`,
      lossModule("me/other", "jsr:@limbeck/limbeck@^0.1.0/plugin"),
    );
    await Deno.writeTextFile(`${folder}/own.ts`, lossModule("me/own"));
    await Deno.writeTextFile(
      `${folder}/limbeck.config.ts`,
      `import { defineConfig } from "@limbeck/limbeck/plugin";
       import own from "./own.ts";
       export default defineConfig({ plugins: [own, "./losses/other.ts"] });`,
    );
    const run = await limbeck(folder, ["distill", "recipe.json", "--output", "run"]);
    assertEquals(run.code, 0, run.err);
    const [config, other] = [`${folder}/limbeck.config.ts`, `${folder}/losses/other.ts`];
    assertEquals((await readRun(`${folder}/run`)).manifest.plugins.map(({ path }) => path), [config, other]);
    assertEquals(origins(await readEvents(`${folder}/run`)), [
      `me/own comes from ${config}`,
      `me/other comes from ${other}`,
    ]);

    const list = await limbeck(folder, ["plugin", "list", "--json"]);
    const modules = (JSON.parse(list.out) as { id: string; module: string }[]).filter((p) =>
      p.module !== null
    );
    assertEquals(modules.map(({ id, module }) => [id, module]), [["me/own", config], ["me/other", other]]);

    // What a run was made with must be there to resume it, in the configuration too.
    const text = await Deno.readTextFile(config);
    await Deno.writeTextFile(config, text + "\n// changed");
    await assertRejects(
      () => openRun(`${folder}/run`, testStore(folder)),
      InputError,
      "not what it was when the run began",
    );
    await Deno.writeTextFile(config, text);
    const store = testStore(folder);
    (await takeRun(store, await adoptRun(`${folder}/run`, store))).release();

    await Deno.mkdir(`${folder}/elsewhere`);
    const none = await limbeck(`${folder}/elsewhere`, ["validate", "../recipe.json"]);
    assertEquals(none.code, 3);
    assertStringIncludes(none.err, "me/own");
  }));

Deno.test("--config names a configuration that lies elsewhere, for verbs that load plugins themselves", () =>
  withTiny(async (files) => {
    const { folder } = files;
    await writeRecipe(files, "me/other");
    await Deno.mkdir(`${folder}/losses`);
    await Deno.writeTextFile(
      `${folder}/losses/other.ts`,
      lossModule("me/other", `${root}src/registry/contract.ts`),
    );
    await Deno.writeTextFile(`${folder}/losses/my.config.ts`, `export default { plugins: ["./other.ts"] };`);
    const valid = await limbeck(folder, [
      "validate",
      "recipe.json",
      "--config",
      "losses/my.config.ts",
      "--json",
    ]);
    assertEquals([valid.code, JSON.parse(valid.out).valid], [0, true], valid.err);
    const twice = ["--plugin", "losses/other.ts", "--config", "losses/my.config.ts"];
    assertEquals((await limbeck(folder, ["estimate", "recipe.json", ...twice])).code, 0);
    assertEquals((await limbeck(folder, ["validate", "recipe.json", "--config", "none.ts"])).code, 3);
  }));

Deno.test("pluginSource() takes files and packages of one exact version, and says why it takes no others", () => {
  const take = (text: string) => pluginSource(text, "/home/ada");
  assertEquals(take("./a/loss.ts"), "/home/ada/a/loss.ts");
  assertEquals(take("/b/loss.ts"), "/b/loss.ts");
  assertEquals(take("file:///b/loss.ts"), "/b/loss.ts");
  for (
    const pinned of [
      "npm:losses@1.2.3",
      "npm:@ada/losses@1.2.3",
      "npm:@ada/losses@1.2.3-beta.1/soft",
      "jsr:@ada/losses@0.10.0",
      "jsr:@ada/losses@0.10.0/soft",
    ]
  ) assertEquals(take(pinned), pinned);
  const refused: [string, RegExp][] = [
    ["npm:@ada/losses", /no exact version/],
    ["npm:@ada/losses@^1.2.3", /no exact version/],
    ["npm:@ada/losses@1.2", /no exact version/],
    ["npm:@ada/losses@latest", /no exact version/],
    ["jsr:losses@1.2.3", /no exact version/],
    ["npm:@ada/losses@1.2.3 || 2.0.0", /no exact version/],
    ["https://example.com/loss.ts", /kind https:/],
    ["data:text/javascript,1", /kind data:/],
  ];
  for (const [text, why] of refused) {
    let message = "";
    try {
      take(text);
    } catch (error) {
      message = (error as Error).message;
    }
    assert(why.test(message), `${text}: ${message}`);
  }
});

Deno.test("describeConfig() says what is no configuration", () => {
  const own = { id: "a/b", kind: "divergence", contract: 1 };
  assertEquals(describeConfig({ default: { plugins: [own, "./a.ts"] } }, "c.ts"), {
    names: ["./a.ts"],
    hasOwn: true,
  });
  assertEquals(describeConfig({ default: {} }, "c.ts"), { names: [], hasOwn: false });
  const wrong: [object, string][] = [
    [{ plugins: [] }, "exports no configuration"],
    [{ default: own }, "exports no configuration"],
    [{ default: { plugin: [] } }, 'no setting "plugin"; did you mean "plugins"?'],
    [{ default: { plugins: "./a.ts" } }, "must be a list"],
    [{ default: { plugins: ["./a.ts", { id: "a/b" }] } }, "plugins.1 is neither"],
  ];
  for (const [module, message] of wrong) {
    assertThrows(() => describeConfig(module, "c.ts"), InputError, message);
  }
});

Deno.test("a configuration runs without permissions, and its mistakes are told with its path", () =>
  withTiny(async (files) => {
    const { folder } = files;
    await writeRecipe(files);
    const cases: [source: string, message: string][] = [
      [
        `export default { plugins: [Deno.readTextFileSync("/etc/hostname")] };`,
        "cannot be run: Requires read access",
      ],
      [`throw new Error("no luck today");`, "cannot be run: no luck today"],
      [`Deno.exit(0);`, "the process that reads it ended with exit code 0"],
      [
        `export default { plugins: ["npm:@ada/losses@^1.0.0"] };`,
        "plugins: npm:@ada/losses@^1.0.0: has no exact version",
      ],
      [`export default { plugins: ["./none.ts"] };`, "none.ts"],
      [`export default {`, "limbeck.config.ts"],
    ];
    for (const [source, message] of cases) {
      await Deno.writeTextFile(`${folder}/limbeck.config.ts`, source);
      const { code, err } = await limbeck(folder, ["distill", "recipe.json", "--output", "run"]);
      assertEquals(code, 3, err);
      assertStringIncludes(err, message);
      assert(!await exists(`${folder}/run`), "a folder was left behind");
    }
  }));

Deno.test("a pinned npm package is fetched before the run, which has no network, and leaves the project's lock file alone", () =>
  withTiny(async (files) => {
    const { folder } = files;
    const registry = await serveNpm({
      name: "@ada/losses",
      version: "1.2.3",
      files: {
        "package.json": JSON.stringify({
          name: "@ada/losses",
          version: "1.2.3",
          type: "module",
          exports: "./index.js",
          dependencies: { zod: "4.6.7" },
        }),
        "index.js": `import { z } from "zod";
          export default {
            kind: "divergence", id: "ada/half-kl", version: "1.2.3", contract: 1, options: z.strictObject({}),
            term: ({ p, logP, logQ }) => p.mul(logP.sub(logQ)).mul(0.5),
          };`,
      },
    });
    const name = "npm:@ada/losses@1.2.3";
    await Deno.writeTextFile(`${folder}/.npmrc`, `@ada:registry=${registry.url}\n`);
    const home = { HOME: folder, DENO_DIR: await cacheFolder() };
    const lockFile = new URL("deno.lock", root);
    const lock = await Deno.readTextFile(lockFile);
    await writeRecipe(files, "ada/half-kl");
    await Deno.writeTextFile(`${folder}/limbeck.config.ts`, `export default { plugins: ["${name}"] };`);
    try {
      const run = await limbeck(folder, ["distill", "recipe.json", "--output", "run"], home);
      assertEquals(run.code, 0, run.err);
      const { plugins } = (await readRun(`${folder}/run`)).manifest;
      assertEquals(plugins.map(({ path }) => path), [name]);
      assert(/^[0-9a-f]{64}$/.test(plugins[0]!.sha256));
      assertEquals(origins(await readEvents(`${folder}/run`)), [`ada/half-kl comes from ${name}`]);

      const valid = await limbeck(folder, ["validate", "recipe.json", "--json"], home);
      assertEquals([valid.code, valid.err], [0, ""]);
      assertEquals(JSON.parse(valid.out).valid, true);
      const check = await limbeck(folder, ["plugin", "show", name, "--json"], home);
      assertEquals(JSON.parse(check.out).id, "ada/half-kl", check.err);

      // From here on the cache must do, as for whoever resumes a run on a train.
      await registry[Symbol.asyncDispose]();
      const args = ["--run", "run", "--target", "limbeck", "--output", "values"];
      const exported = await limbeck(folder, ["export", ...args], home);
      assertEquals(exported.code, 0, exported.err);
      assertEquals(await Deno.readTextFile(lockFile), lock);
    } finally {
      await registry[Symbol.asyncDispose]();
      // A port will be another registry's some day.
      const cached = `${home.DENO_DIR}/npm/${new URL(registry.url).port}`;
      await Deno.remove(cached, { recursive: true }).catch(() => {});
    }
  }));

/** Deno's cache, which has zod already. */
async function cacheFolder(): Promise<string> {
  const { stdout } = await new Deno.Command(Deno.execPath(), { args: ["info", "--json"] }).output();
  return JSON.parse(new TextDecoder().decode(stdout)).denoDir;
}
