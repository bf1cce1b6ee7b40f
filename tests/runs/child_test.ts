/** What holds for every kind of child process: it reads nothing that it may not, says why it ends, and ends with its parent. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { readConfig } from "../../src/runs/child/config_file.ts";
import { Child, howItEnded } from "../../src/runs/child/host.ts";
import { InferenceProcess } from "../../src/runs/child/inference.ts";
import { Inspector } from "../../src/runs/child/inspection.ts";
import { inspectPlugins } from "../../src/runs/child/plugin_check.ts";
import { tinyRecipe, withTiny } from "../distill/tiny_model.ts";
import { childrenOf } from "../processes.ts";
import { startFake, withFolder } from "./fake_run.ts";
import { exists } from "../../src/formats/files.ts";

/** Loads a module in a child of each kind that loads what others wrote; gives what is told of it. */
const KINDS: Readonly<Record<string, (module: string) => Promise<string>>> = {
  "a check of plugins": (module) =>
    message(inspectPlugins({ files: [module], ids: [], check: false, options: {}, timeoutSeconds: 30 })),
  "a configuration": (module) => message(readConfig(module)),
  "a look at a recipe": (module) =>
    withTinyResult(({ recipe }) =>
      message(new Inspector().inspect({ kind: "validate", recipe }, { plugins: [module] }))
    ),
  "a process that writes": (module) =>
    withTinyResult(({ folder, recipe }) =>
      message(InferenceProcess.start({ model: { folder, recipe }, plugins: [module] }))
    ),
  "a run": async (module) => {
    let told = "";
    await withFolder(async (folder) => {
      const { supervised } = await startFake(folder, { pace: 100 }, { plugins: [module] });
      told = (await supervised.outcome).error?.message ?? "nothing";
    });
    return told;
  },
};

async function message(work: Promise<unknown>): Promise<string> {
  return await work.then(() => "nothing", (error) => error.message);
}

async function withTinyResult(
  use: (files: { folder: string; recipe: ReturnType<typeof tinyRecipe> }) => Promise<string>,
): Promise<string> {
  let told = "";
  await withTiny(async (files) => {
    told = await use({ folder: files.folder, recipe: tinyRecipe(files) });
  });
  return told;
}

/** A folder `secrets/` with what is to stay there, and `plugin/` beside it. */
async function withSecrets(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.realPath(await Deno.makeTempDir({ prefix: "limbeck-" }));
  try {
    for (const name of ["secrets", "plugin/data", "plugin/.hidden"]) {
      await Deno.mkdir(`${folder}/${name}`, { recursive: true });
    }
    for (const place of ["secrets", "plugin/data", "plugin/.hidden", "plugin"]) {
      await Deno.writeTextFile(`${folder}/${place}/key.txt`, "hush\n");
      await Deno.writeTextFile(`${folder}/${place}/key.json`, '"hush"');
      await Deno.writeTextFile(`${folder}/${place}/key`, "hush");
    }
    await Deno.writeTextFile(`${folder}/secrets/code.ts`, 'export default "hush";\n');
    await Deno.symlink(`${folder}/secrets/key.txt`, `${folder}/plugin/link.txt`);
    await use(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const text = (path: string) => `import found from "${path}" with { type: "text" };`;
const json = (path: string) => `import found from "${path}" with { type: "json" };`;
/** The end of each module: what it found is in what it throws. */
const TELL = 'throw new Error("found " + String(found).trim());';

Deno.test("no kind of child imports a file that it may not read", () =>
  withSecrets(async (folder) => {
    const plugin = `${folder}/plugin/plugin.ts`;
    await Deno.writeTextFile(plugin, text("../secrets/key.txt") + TELL);
    for (const [kind, load] of Object.entries(KINDS)) {
      const told = await load(plugin);
      assert(!told.includes("hush"), `${kind} read it`);
      assertStringIncludes(told, `${folder}/secrets/key.txt`, kind);
      assertStringIncludes(told, "none of the plugin's own files", kind);
    }
  }));

Deno.test("plugins import code from anywhere, and data from their own folder alone", () =>
  withSecrets(async (folder) => {
    const plugin = `${folder}/plugin/plugin.ts`;
    const data = (source: string) => `data:text/javascript,${encodeURIComponent(source)}`;
    const inner = `${text(`file://${folder}/secrets/key.txt`)} export default found;`;
    const cases: [source: string, isRefused: boolean][] = [
      [json("../secrets/key.json"), true],
      [`${text("../secrets/code.ts")}`, true],
      ['const { default: found } = await import("../secrets/key.txt", { with: { type: "text" } });', true],
      [`import found from "${data(inner)}";`, true],
      [`const { default: found } = await import(${JSON.stringify(data(inner))});`, true],
      // Without a known extension it is taken for code; what is wrong with it shows its text.
      ['let found; try { await import("../secrets/key"); } catch (error) { found = error.message; }', true],
      [text("./.hidden/key.txt"), true],
      [text("./link.txt"), true],
      [text("./key.txt"), false],
      [json("./data/key.json"), false],
      ['import found from "../secrets/code.ts";', false],
    ];
    for (const [source, isRefused] of cases) {
      await Deno.writeTextFile(plugin, source + TELL);
      const told = await KINDS["a check of plugins"]!(plugin);
      assertEquals(told.includes("found hush"), !isRefused, `${source}: ${told}`);
      if (isRefused) assertStringIncludes(told, "none of the plugin's own files", source);
    }
    // What is computed is asked for when it runs.
    for (const name of ["../secrets/key.txt", data(inner)]) {
      const source =
        `const name = ${JSON.stringify(name)} + ""; const { default: found } = await import(name, ` +
        `${name.startsWith("..") ? '{ with: { type: "text" } }' : "{}"});`;
      await Deno.writeTextFile(plugin, source + TELL);
      assertStringIncludes(await KINDS["a check of plugins"]!(plugin), "Requires read access");
    }
  }));

Deno.test("what ends a child is told, also from a promise that nobody waits for, and no worker ends it silently", () =>
  withSecrets(async (folder) => {
    const plugin = `${folder}/plugin/plugin.ts`;
    const wait = "await new Promise((resolve) => setTimeout(resolve, 3000));";
    const every = Object.keys(KINDS);
    // Which rights it has, how an error reaches who waits and what a silent end is called differ from kind to kind; that errors of timers
    // are heard and that there are no workers is in the entry that all of them share.
    const one = ["a check of plugins"];
    const endings: [source: string, reason: string, kinds: readonly string[]][] = [
      [`Deno.readTextFile("/etc/hostname"); ${wait}`, 'Requires read access to "/etc/hostname"', every],
      [`Promise.reject(new Error("nobody waits")); ${wait}`, "nobody waits", one],
      [`setTimeout(() => { throw new Error("much later"); }); ${wait}`, "much later", one],
      [
        `new Worker("data:text/javascript,throw 1", { type: "module" }); ${wait}`,
        "Workers may not be started here",
        one,
      ],
      ["Deno.exit(3);", "ended with exit code 3 without saying why", every],
    ];
    for (const [source, reason, kinds] of endings) {
      await Deno.writeTextFile(plugin, `${source} export {};\n`);
      for (const kind of kinds) {
        const told = await KINDS[kind]!(plugin);
        assertStringIncludes(told, reason, `${kind}: ${source}`);
        // In its own words, not in what Deno prints of it.
        assert(!told.includes("last words"), told);
      }
    }
  }));

Deno.test("Child passes messages on, and knows the end of what is no message", async () => {
  const folder = await Deno.makeTempDir({ prefix: "limbeck-" });
  const printed: string[] = [];
  const console = {
    write: (text: string | Uint8Array) =>
      void printed.push(typeof text === "string" ? text : new TextDecoder().decode(text)),
  };
  const run = async (source: string, graceSeconds = 0, seconds?: number) => {
    await Deno.writeTextFile(`${folder}/script.ts`, source);
    const args = ["run", "--quiet", "--no-prompt", "--no-config", "script.ts"];
    const command = { args, env: { NO_COLOR: "1" } };
    const child = new Child({ command, folder, order: ["do", "it"], console, graceSeconds });
    child.expect(seconds);
    const messages = await Array.fromAsync(child.messages());
    return { messages, ...await child.ended };
  };
  try {
    const noise = 'for (let i = 0; i < 30; i++) console.error("noise", i);';
    const failed = await run(`
      const { value } = await Deno.stdin.readable.pipeThrough(new TextDecoderStream()).getReader().read();
      console.log(JSON.stringify({ type: "heard", order: JSON.parse(value!).order }));
      console.log("printed past the console");
      ${noise}
      throw new Error("no more");`);
    assertEquals<unknown>(failed.messages, [{ type: "heard", order: ["do", "it"] }]);
    assertStringIncludes(printed.join(""), "printed past the console");
    assertStringIncludes(printed.join(""), "noise 0");
    assertEquals([failed.code, failed.silentSeconds, failed.outOfMemory], [1, undefined, false]);
    assertMatch(howItEnded(failed), /^ended with exit code 1; its last words:\nerror: Uncaught .*no more/);
    const quiet = await run(`${noise} Deno.exit(4);`);
    assertMatch(howItEnded(quiet), /^ended with exit code 4; its last words:\nnoise 18\n[^]*noise 29$/);

    const beats =
      'setInterval(() => console.log(`{"type":"alive"}`), 200); setTimeout(() => Deno.exit(0), 2000);';
    assertEquals((await run(beats, 0, 1)).silentSeconds, undefined);
    const hung = await run("setTimeout(() => {}, 60_000);", 0, 1);
    assertEquals([hung.signal, howItEnded(hung)], ["SIGKILL", "gave no sign of life for 1 s and was ended"]);
    const polite = 'Deno.addSignalListener("SIGTERM", () => Deno.exit(0)); setTimeout(() => {}, 60_000);';
    assertEquals((await run(polite, 5, 1)).code, 0);
    const deaf = 'Deno.addSignalListener("SIGTERM", () => {}); setTimeout(() => {}, 60_000);';
    assertEquals((await run(deaf, 0.5, 1)).signal, "SIGKILL");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

const isAlive = (pid: number) => exists(`/proc/${pid}`);

async function until(holds: () => boolean | Promise<boolean>, seconds: number): Promise<boolean> {
  const end = performance.now() + seconds * 1000;
  while (performance.now() < end) {
    if (await holds()) return true;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return false;
}

function startParent(kind: string, given: string): Deno.ChildProcess {
  const args = ["run", "-A", new URL("./abandoned_parent.ts", import.meta.url).pathname, kind, given];
  return new Deno.Command(Deno.execPath(), { args, stdout: "piped", stderr: "null" }).spawn();
}

/** Waits for a child that has worked for longer than it takes to begin: it loops. */
async function busyChild(parent: Deno.ChildProcess): Promise<number> {
  let child: number | undefined;
  const isBusy = () => {
    child = [...childrenOf(parent.pid)].find(([, time]) => time > 1.5)?.[0];
    return child !== undefined;
  };
  assert(await until(isBusy, 90), "there is no child that is busy");
  return child!;
}

/** The child of which its parent tells the id. */
async function toldChild(parent: Deno.ChildProcess): Promise<number> {
  const reader = parent.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const { value } = await reader.read();
  await reader.cancel();
  return Number(value);
}

/** Kills a process whose child does not end by itself, and says whether that lives on for so long; it does not any longer. */
async function outlives(
  kind: string,
  given: string,
  seconds: number,
  find: (parent: Deno.ChildProcess) => Promise<number>,
): Promise<boolean> {
  await using parent = startParent(kind, given);
  const child = await find(parent);
  parent.kill("SIGKILL");
  await parent.status;
  if (await until(async () => !await isAlive(child), seconds)) return false;
  Deno.kill(child, "SIGKILL");
  return true;
}

Deno.test({
  name: "a child that never ends is ended when the process that started it is gone",
  ignore: Deno.build.os !== "linux",
  fn: () =>
    withTiny(async (files) => {
      const plugin = `${files.folder}/plugin.ts`;
      await Deno.writeTextFile(plugin, "for (;;);\n");
      assert(!await outlives("a check of plugins", plugin, 20, busyChild));

      // One filter of a chat template that writes 2^60 elements.
      const config = `${files.teacher}/tokenizer_config.json`;
      const settings = JSON.parse(await Deno.readTextFile(config));
      settings.chat_template =
        "{% set n = namespace(a=[1]) %}{% for i in range(60) %}{% set n.a = [n.a, n.a] %}{% endfor %}{{ n.a | tojson }}";
      await Deno.writeTextFile(config, JSON.stringify(settings));
      await Deno.remove(`${files.teacher}/chat_template.jinja`).catch(() => {});
      const conversation = [{ role: "user", content: "a" }, { role: "assistant", content: "b" }];
      await Deno.writeTextFile(files.train, JSON.stringify({ messages: conversation }) + "\n");
      const recipe = `${files.folder}/recipe.json`;
      await Deno.writeTextFile(recipe, JSON.stringify(tinyRecipe(files)));
      assert(!await outlives("a look at a recipe", recipe, 20, busyChild));

      // A run is given as long to save as it may be silent.
      await withFolder(async (folder) => assert(!await outlives("a run that hangs", folder, 30, toldChild)));
    }),
});

Deno.test({
  name: "a run whose steps are long is not ended when its parent is gone, as long as it speaks",
  ignore: Deno.build.os !== "linux",
  fn: () => withFolder(async (folder) => assert(await outlives("a run that speaks", folder, 8, toldChild))),
});

Deno.test("a plugin that is not there is bad input", async () => {
  await assertRejects(() => readConfig("/nowhere/limbeck.config.ts"), Error, "there is no such file");
  const look = { ids: [], check: false, options: {}, timeoutSeconds: 5 };
  await assertRejects(
    () => inspectPlugins({ ...look, files: ["/nowhere/a.ts"] }),
    Error,
    "there is no such file",
  );
});
