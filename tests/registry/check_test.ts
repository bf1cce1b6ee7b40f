/** Plugins that lie are caught and named, whatever they do; honest ones pass. Each is checked as users check theirs. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { LimbeckError } from "../../src/base/errors.ts";
import { builtins } from "../../plugins/mod.ts";
import { Checklist, type CheckResult } from "../../src/registry/check/checklist.ts";
import { checkCachedTeacher } from "../../src/registry/check/row_losses.ts";
import type { Divergence, RowLoss } from "../../src/registry/contract.ts";
import { type InspectedPlugin, inspectPlugins } from "../../src/runs/child/plugin_check.ts";
import { term } from "../losses/harness.ts";

type Module = "losses" | "adapters" | "features";

/** Checks the lies of those names, each from a module of its own outside of the project, in one process. */
async function checkAll(
  module: Module,
  names: readonly string[],
  options = {},
  timeoutSeconds = 60,
): Promise<InspectedPlugin[]> {
  return await inFolder(async (folder) => {
    const files = names.map((name) => `${folder}/${name}.ts`);
    const source = new URL(`./lying_plugins/${module}.ts`, import.meta.url).href;
    for (const [i, name] of names.entries()) {
      await Deno.writeTextFile(
        files[i]!,
        `import { lie } from ${JSON.stringify(source)};\nexport default lie("${name}");\n`,
      );
    }
    const found = await inspectPlugins({ files, ids: [], check: true, options, timeoutSeconds });
    assertEquals(found.map((f) => f.module), files);
    return found;
  });
}

/** Checks one lie, alone. */
async function check(module: Module, name: string, options = {}, timeoutSeconds = 60) {
  return (await checkAll(module, [name], options, timeoutSeconds))[0]!;
}

/** Checks lies in one process, which the first who asks for any of them starts. */
function together(module: Module, names: readonly string[]): (name: string) => Promise<InspectedPlugin> {
  let found: Promise<InspectedPlugin[]> | undefined;
  return async (name) => (await (found ??= checkAll(module, names)))[names.indexOf(name)]!;
}

async function inFolder<T>(fn: (folder: string) => Promise<T>): Promise<T> {
  const folder = await Deno.realPath(await Deno.makeTempDir({ prefix: "limbeck-" }));
  try {
    return await fn(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** What a lie's first failed check is called, and what is said of it. */
const LOSSES: readonly [name: string, check: RegExp, detail: string, timeoutSeconds?: number][] = [
  ["wrong-gradient", /^kernel against reference\(\)/, "the WGSL gives the gradient at entry"],
  ["nan", /^kernel against reference\(\)/, "NaN"],
  ["out-of-row", /^kernel against reference\(\)/, "it writes outside of its row"],
  ["beyond-memory", /^time and memory/, "it stores beyond the memory of its row"],
  ["scribbles", /^kernels compile/, "writing to this location is not permitted"],
  ["endless-loop", /^kernel against reference\(\)/, "", 8],
  ["endless-kernel", /^kernel/, "gave no sign of life for 4 s", 4],
  ["endless-script", /^reference\(\) in f64/, "gave no sign of life for 4 s", 4],
  ["no-kernel", /^kernels compile/, "undeclared"],
  ["wrong-reference", /^gradient against finite differences/, 'on the row "random", entry 0'],
  ["same-id", /^contract/, "same id"],
  ["other-contract", /^contract/, "contract 99"],
  ["loose-options", /^options/, "takes options that it does not know"],
  ["no-default", /^options/, "k: "],
  ["no-schema", /^(contract|options)/, "schema"],
  ["infinite", /^term\(\) in f64/, "Infinity"],
  ["exits", /^reference\(\) in f64/, "ended with exit code 0"],
  ["reads-files", /^reference\(\) in f64/, "Requires read access"],
];

/** Those after which there is no process, or no device, to go on with, and those beside which no other plugin can be registered. */
const ALONE = [
  ...["endless-loop", "endless-kernel", "endless-script", "exits"],
  ...["same-id", "other-contract", "loose-options", "no-default", "no-schema", "taken-suffix"],
];
const losses = together("losses", [
  "honest",
  ...LOSSES.map(([name]) => name).filter((name) => !ALONE.includes(name)),
]);

for (const [name, where, detail, timeoutSeconds] of LOSSES) {
  Deno.test(`plugin check names the loss that lies: ${name}`, async () => {
    const { plugin, results } = ALONE.includes(name)
      ? await check("losses", name, {}, timeoutSeconds)
      : await losses(name);
    assert(plugin.id === `liar/${name}` || name === "same-id");
    const failed = results.find((r) => r.outcome === "fail");
    assert(failed, `nothing failed: ${JSON.stringify(results)}`);
    assert(where.test(failed.check), `${failed.check}: ${failed.detail}`);
    assertStringIncludes(failed.detail, detail);
    assert(failed.hint, "it does not say what to do");
  });
}

Deno.test("plugin check passes an honest loss and does every check", async () => {
  const { results } = await losses("honest");
  assertEquals(results.filter((r) => r.outcome === "fail"), []);
  for (
    const part of [
      "contract",
      "options",
      "finite differences",
      "kernels compile",
      "same bytes",
      "time and memory",
    ]
  ) {
    assert(results.some((r) => r.check.includes(part)), part);
  }
});

Deno.test("plugin check takes options that have no default", async () => {
  const { results } = await check("losses", "no-default", { k: 3 });
  assertEquals(results.find((r) => r.check === "options"), {
    check: "options",
    outcome: "pass",
    detail: "k=3",
  });
});

const ADAPTERS: readonly [name: string, check: RegExp, detail: string][] = [
  ["wrong-merge", /^merge equals forward/, "merge() gives another output than forward()"],
  ["wrong-shape", /^forward/, "it returns f32 [7, 24] where f32 [7, 40] is wanted"],
  ["not-the-base", /^output at the start/, "differs from the base's"],
  ["unsaid-prompt", /^forward/, "calls prompt(), which is not declared"],
  ["other-experts", /^experts equal forward/, "experts() gives another output than forward()"],
  ["unused", /^gradients/, "does not depend on D"],
  ["steep-penalty", /^penalty/, "where training begins the penalty's gradient"],
  ["wide-penalty", /^penalty/, "it returns f32 [40, 24] where f32 [1] is wanted"],
  ["poisoned-state", /^work after/, "without a finite gradient model.layers.0.layer_0.mean holds NaN"],
  ["unknown-state", /^work after/, 'asks for "model.layers.0.layer_0.mean", which is not declared'],
  ["moody-scalars", /^work after/, "the number chance of step 1 is"],
  ["taken-suffix", /^contract/, '"lora"'],
];

const adapters = together("adapters", [
  "honest-adapter",
  "unmergeable",
  ...ADAPTERS.map(([name]) => name).filter((name) => !ALONE.includes(name)),
]);

for (const [name, where, detail] of ADAPTERS) {
  Deno.test(`plugin check names the adapter that lies: ${name}`, async () => {
    const { results } = ALONE.includes(name) ? await check("adapters", name) : await adapters(name);
    const failed = results.find((r) => r.outcome === "fail");
    assert(failed && where.test(failed.check), `${failed?.check}: ${failed?.detail}`);
    assertStringIncludes(failed.detail, detail);
    assert(failed.hint, "it does not say what to do");
  });
}

Deno.test("plugin check passes an honest adapter", async () => {
  const { results } = await adapters("honest-adapter");
  assertEquals(results.filter((r) => r.outcome !== "pass"), []);
});

Deno.test("plugin check says that an adapter without merge() is compared with no weight", async () => {
  const { results } = await adapters("unmergeable");
  assertEquals(results.filter((r) => r.outcome === "fail"), []);
  const skipped = results.filter((r) => r.outcome === "skip");
  assertEquals(skipped.map((r) => r.check.replace(/ \[.*/, "")), Array(3).fill("merge equals forward"));
  assertStringIncludes(skipped[0]!.detail, "it has no merge()");
});

Deno.test("plugin check passes an honest feature loss and names what is wrong with others", async () => {
  const lies = ["honest-feature", "not-a-row", "unknown-tap", "jumps", "neighbours", "unused"];
  const features = together("features", lies);
  const { results } = await features("honest-feature");
  assertEquals(results.filter((r) => r.outcome !== "pass"), []);
  assert(results.some((r) => r.check.includes("finite differences") && r.detail.includes("projection")));
  const failure = async (name: string) =>
    (await features(name)).results.find((r) => r.outcome === "fail")?.detail ?? "nothing failed";
  assertStringIncludes(await failure("not-a-row"), "f32 [11, 12] where f32 [11] is wanted");
  assertStringIncludes(await failure("unknown-tap"), '"student elsewhere"');
  assertStringIncludes(await failure("jumps"), "the output changes by");
  assertStringIncludes(await failure("neighbours"), "depends on positions of another sample");
  assertStringIncludes(await failure("unused"), "does not depend on projection");
});

Deno.test("a loss's kernels go to Tint as well, in a process that never sees the plugin", async () => {
  const order = { files: [], ids: ["total-variation"], check: true, options: {}, timeoutSeconds: 60 };
  const [{ results }] = await inspectPlugins(order) as [InspectedPlugin];
  const tint = results.at(-1)!;
  assertEquals(tint.check, "kernels compile under Tint");
  assertEquals(results.find((r) => r.check === "cached teacher, f64")?.outcome, "pass");
  if (tint.outcome === "skip") assertMatch(tint.detail, /not installed|without a GPU/);
  else assertEquals([tint.outcome, tint.detail], ["pass", "8 kernels"]);
});

Deno.test("inspectPlugins() refuses modules that hang, throw, or export no plugin", () =>
  inFolder(async (folder) => {
    const file = `${folder}/plugin.ts`;
    const inspect = async (source: string, message: string, timeoutSeconds = 30) => {
      await Deno.writeTextFile(file, source);
      const options = { files: [file], ids: [], check: false, options: {}, timeoutSeconds };
      const error = await assertRejects(() => inspectPlugins(options), LimbeckError, message);
      assertStringIncludes(error.message, "plugin.ts");
    };
    await inspect("for (;;);", "gave no sign of life", 2);
    await inspect('throw new Error("not today");', "not today");
    await inspect("export const nothing = 1;", "exports no plugin");
    await inspect("export default {", "cannot be loaded");
  }));

Deno.test("plugin check says which losses a cached teacher can serve, and why not others", async () => {
  // It is a check in f64, so it is done here: all the checks of four losses would compile many kernels.
  const found = async (id: string) => {
    const loss = builtins.find((plugin) => plugin.id === id) as Divergence | RowLoss;
    const results: CheckResult[] = [];
    const list = new Checklist({ begin: () => {}, result: (result) => void results.push(result) });
    await checkCachedTeacher(term(loss), list);
    return results.find((r) => r.check === "cached teacher, f64")!;
  };
  const forward = await found("forward-kl");
  assertEquals(forward.outcome, "pass");
  assertMatch(forward.detail, /^with all tokens but one the same .*; of samples too$/);
  const reverse = await found("reverse-kl");
  assertEquals(reverse.outcome, "pass");
  assertStringIncludes(reverse.detail, "of samples it cannot be had: its gradient is not linear");
  const ranks = await found("rank-correlation");
  assertEquals(ranks.outcome, "skip");
  assertStringIncludes(ranks.detail, "it needs every logit of the teacher; a cache holds 6");
  const entropy = await found("entropy");
  assertEquals([entropy.outcome, entropy.detail], ["skip", "the loss does not look at the teacher"]);
});
