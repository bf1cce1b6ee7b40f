/** `plugin check` of merges: the built-in ones pass, and those that lie are named. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { z } from "zod";
import { builtins } from "../../plugins/mod.ts";
import { exactLinearAlgebra } from "../../src/linalg/host.ts";
import { checkPlugin, type CheckResult } from "../../src/registry/check/check_plugin.ts";
import {
  CONTRACT_VERSION,
  defineMerge,
  type Merge,
  noOptions,
  type Plugin,
} from "../../src/registry/contract.ts";
import { pluginIdentity } from "../../src/registry/identity.ts";
import { describePlugin } from "../../src/registry/plugin_description.ts";

async function check(plugin: Plugin, options = {}): Promise<CheckResult[]> {
  const results: CheckResult[] = [];
  const others = builtins.filter((other) => other !== plugin);
  const listener = { begin: () => {}, result: (result: CheckResult) => void results.push(result) };
  await checkPlugin({ plugin, others, options, linalg: exactLinearAlgebra }, listener);
  return results;
}

const merges = builtins.filter((plugin): plugin is Merge => plugin.kind === "merge");

for (const merge of merges) {
  Deno.test(`${merge.id} passes its checks`, async () => {
    const results = await check(merge);
    assertEquals(results.filter(({ outcome }) => outcome === "fail"), []);
    const skipped = results.filter(({ outcome }) => outcome === "skip").map((r) => r.check);
    assert(skipped.every((name) => name.startsWith("pieces equal the whole")), skipped.join());
    assert(results.length >= 7, `only ${results.length} checks`);
  });
}

Deno.test("with other options merges pass their checks too", async () => {
  const fails = async (id: string, options: object) =>
    (await check(merges.find((merge) => merge.id === id)!, options)).filter((r) => r.outcome === "fail");
  assertEquals(await fails("ties", { trim: "tensor" }), []);
  assertEquals(await fails("dare-linear", { rescaling: "l1" }), []);
  assertEquals(await fails("della", { rescale: false }), []);
  assertEquals(await fails("model-stock", { filterWise: true }), []);
  assertEquals(await fails("nuslerp", { flatten: false, columns: true }), []);
  assertEquals(await fails("sce", { selectTopk: 0.4, faithful: true }), []);
});

type Given = Parameters<Merge["merge"]>[0];

/** A merge that is honest but for what is changed. */
function lying(id: string, changes: Partial<Merge>): Merge {
  const honest = defineMerge({
    id: `liar/${id}`,
    version: "1.0.0",
    contract: CONTRACT_VERSION,
    options: z.strictObject({ lambda: z.number().default(1) }),
    parentOptions: z.strictObject({ weight: z.number().default(1) }),
    base: "required",
    parents: { least: 1 },
    unit: "entries",
    identities: {
      symmetric: true,
      base: { options: { lambda: 0 } },
      first: { parents: [{}, { weight: 0 }] },
    },
    merge: ({ base, parents, options: { lambda } }) =>
      base!.map((w, i) =>
        w + lambda * parents.reduce((sum, p) => sum + p.options.weight * (p.values[i]! - w), 0)
      ),
  });
  return { ...honest, ...changes };
}

const honest = lying("honest", {});
const kept = new Float32Array(1000);
let calls = 0;
let before = 0;

const LIES: readonly [name: string, changes: Partial<Merge>, check: string, detail: string][] = [
  ["no-parents", { parents: undefined! }, "contract", "parents is undefined"],
  ["least-above-most", { parents: { least: 3, most: 2 } }, "contract", '{"least":3,"most":2}'],
  ["odd-base", { base: "perhaps" as "none" }, "contract", 'base is "perhaps"'],
  ["odd-unit", { unit: "rows" as "tensor" }, "contract", 'unit is "rows"'],
  ["no-parent-options", { parentOptions: undefined! }, "contract", "parentOptions is missing"],
  [
    "required-weight",
    { parentOptions: z.strictObject({ weight: z.number() }) },
    "options of parents",
    "weight: ",
  ],
  [
    "loose-parents",
    { parentOptions: z.object({ weight: z.number().default(1) }) },
    "options of parents",
    "does not know",
  ],
  ["short", { merge: ({ base }) => base!.slice(1) }, "result", "0 numbers on a tensor of [1], where 1"],
  ["f64", { merge: ({ base }) => Float64Array.from(base!) as unknown as Float32Array }, "result", "object"],
  ["nan", { merge: ({ base }) => base!.map((x) => Math.sqrt(x)) }, "result", "NaN"],
  [
    "divides-by-zero",
    { merge: ({ base, parents }) => base!.map((w, i) => w + (parents[0]!.values[i]! / w - 1)) },
    "finite on finite",
    "all zero: the result is NaN at entry 0",
  ],
  ["wants-two", { merge: ({ parents }) => parents[1]!.values }, "result", "throws"],
  [
    "asks-beyond",
    { merge: ({ random, parents }) => random(parents.length) },
    "result",
    "random(1) of 1 parents",
  ],
  ["moody", { merge: ({ base }) => base!.map((w) => w + calls++ * 1e-3) }, "the same each time", "two runs"],
  [
    "keeps-its-array",
    {
      merge({ base }: Given) {
        kept.set(base!);
        return kept.subarray(0, base!.length);
      },
    },
    "result",
    "two calls return the same array",
  ],
  [
    "remembers",
    {
      merge({ base, name }: Given) {
        const last = before;
        before = name.length;
        return base!.map((w) => w + last);
      },
    },
    "the same each time",
    "when other tensors come before it",
  ],
  [
    "changes-options",
    {
      merge({ base, options }: Given) {
        options.lambda = 2;
        return base!;
      },
    },
    "result",
    "throws TypeError",
  ],
  [
    "not-by-entries",
    { merge: ({ base }) => base!.map((w, i) => w + 0 * i).reverse() },
    "pieces equal the whole",
    "becomes something else",
  ],
  [
    "not-the-base",
    { identities: { base: { options: { lambda: 0.5 } } } },
    "options that leave the base",
    "entry 0",
  ],
  [
    "not-the-first",
    { identities: { first: { parents: [{ weight: 0.9 }] } } },
    "options that leave the first parent",
    "do not give the first parent",
  ],
  [
    "not-symmetric",
    { merge: (given) => honest.merge({ ...given, parents: given.parents.slice(0, 1) }) },
    "order of the parents",
    "the order of the parents matters",
  ],
  ["unequal", { merge: ({ base }) => base!.map((w) => w + 0.01) }, "equal models", "do not give that model"],
  ["unlike", { like: { other: { options: { lamda: 1 } } } }, "like other", '{"lamda":1}'],
  [
    "half-survey",
    { survey: { passes: () => 0.5, begin: () => 0, see: () => {} } },
    "result",
    "survey.passes()",
  ],
];

Deno.test("plugin check passes an honest merge", async () => {
  assertEquals((await check(honest)).filter((r) => r.outcome !== "pass"), []);
});

for (const [name, changes, where, detail] of LIES) {
  Deno.test(`plugin check names the merge that lies: ${name}`, async () => {
    const failed = (await check(lying(name, changes))).find((r) => r.outcome === "fail");
    assert(failed, "nothing failed");
    assertEquals(failed.check, where, failed.detail);
    assertStringIncludes(failed.detail, detail);
  });
}

Deno.test("a merge is identified by its parents' options and its survey too", () => {
  const identity = (changes: Partial<Merge>) => pluginIdentity(lying("x", changes));
  assertEquals(identity({}), identity({}));
  const { survey } = merges.find(({ id }) => id === "ties")!;
  const all = [identity({}), identity({ parentOptions: noOptions }), identity({ survey: survey! })];
  assertEquals(new Set([...all, identity({ survey: { ...survey!, passes: () => 3 } })]).size, 4);
});

Deno.test("a merge is described with the options of its parents", () => {
  const { furtherOptions, role } = describePlugin(merges.find(({ id }) => id === "ties")!);
  assertEquals([role, furtherOptions.parentOptions!.about], ["merge", "of each parent"]);
  assertEquals(Object.keys(furtherOptions.parentOptions!.schema!.properties!), ["weight", "density"]);
  assertEquals(describePlugin(builtins[0]!).furtherOptions, {});
});

Deno.test("every built-in merge is described in docs/merging.md, and has a description and a source", async () => {
  const file = await Deno.readTextFile(new URL("../../docs/merging.md", import.meta.url));
  const text = file.slice(file.indexOf("## Methods"), file.indexOf("### Against the papers"));
  const described = [...text.matchAll(/^\| `([a-z-]+)` +\|/gm)].map((match) => match[1]);
  assertEquals(described.sort(), merges.map(({ id }) => id).sort());
  for (const { id, description, source, options, parentOptions } of merges) {
    assert(description && source, id);
    const row = text.split("\n").find((line) => line.startsWith(`| \`${id}\` `))!;
    if (/the same/.test(row.split("|").at(-2)!)) continue;
    for (const name of [...Object.keys(options.shape), ...Object.keys(parentOptions.shape)]) {
      assert(row.includes(`\`${name}\``), `${id} has ${name}, which docs/merging.md does not say`);
    }
  }
});
