/** A kind of plugins is a row: a made-up one is registered, looked up, described, checked, identified and begun like those there are. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertNotEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { z } from "zod";
import { builtins } from "../../plugins/mod.ts";
import { InputError } from "../../src/base/errors.ts";
import { newPlugin } from "../../src/cli/verbs/plugin.ts";
import { sha256 } from "../../src/distill/inputs/identity.ts";
import { hostLinearAlgebra } from "../../src/linalg/host.ts";
import { checkPlugin, type CheckResult } from "../../src/registry/check/check_plugin.ts";
import { CONTRACT_VERSION, PluginError, type PluginHeader } from "../../src/registry/contract.ts";
import { pluginIdentity } from "../../src/registry/identity.ts";
import type { AnyPlugin, Kind } from "../../src/registry/kind.ts";
import { KINDS } from "../../src/registry/kinds/mod.ts";
import { Registry } from "../../src/registry/registry.ts";
import { describePlugin } from "../../src/registry/plugin_description.ts";

interface Schedule extends PluginHeader {
  readonly kind: "schedule";
  readonly abbreviation?: string;
  rate(done: number): number;
}

const schedule: Kind<Schedule, "schedule"> = {
  id: "schedule",
  role: "schedule",
  define: "defineSchedule",
  functions: ["rate"],
  malformed: ({ abbreviation = "" }) =>
    abbreviation.length > 3 ? { message: "its abbreviation is long", hint: "at most 3 letters" } : undefined,
  unique: {
    of: ({ abbreviation }) => abbreviation === undefined ? [] : [abbreviation],
    say: (name) => `it is abbreviated "${name}"`,
  },
  computes: ({ rate }) => [0, 0.5, 1].map(rate).join(),
  check: async ({ rate }, _, list) => {
    await list.step("ends at zero", () => {
      if (rate(1) !== 0) throw new Error(`the rate ends at ${rate(1)}`);
      return "yes";
    });
  },
  template: { name: "schedule", source: "// NAME in FILE: SUFFIX\n" },
};

const kinds = [...KINDS, schedule];

function made(id: string, more: Partial<Schedule> = {}): Schedule {
  return {
    kind: "schedule",
    id,
    version: "1.0.0",
    contract: CONTRACT_VERSION,
    options: z.strictObject({ power: z.number().default(2) }),
    rate: (done) => 1 - done,
    ...more,
  };
}

const falling = made("test/falling", { abbreviation: "f" });

async function check(plugin: AnyPlugin, others: readonly AnyPlugin[] = []): Promise<CheckResult[]> {
  const results: CheckResult[] = [];
  const subject = { plugin, others, options: {}, linalg: hostLinearAlgebra, kinds };
  await checkPlugin(subject, { begin: () => {}, result: (r) => void results.push(r) });
  return results;
}

Deno.test("a kind that is one row is registered, listed and looked up", () => {
  const registry = new Registry(kinds).addAll(builtins).add(falling);
  assertEquals(registry.list().length, builtins.length + 1);
  assertStrictEquals(registry.get("schedule", "test/falling"), falling);
  assertEquals(registry.get("schedule", "test/falling").rate(0.25), 0.75);
  // Its ids are its own: a loss may have the same.
  registry.add(made("forward-kl"));
  assertNotEquals<unknown>(registry.get("schedule", "forward-kl"), registry.get("loss", "forward-kl"));
  const error = assertThrows(() => registry.get("schedule", "test/faling"), InputError, "no schedule");
  assert((error as InputError).hint!.includes('did you mean "test/falling"?'));
});

Deno.test("a plugin of such a kind is refused where it is malformed, and by a table without the kind", () => {
  const registry = new Registry(kinds).add(falling);
  const refused = (plugin: Schedule, why: string) =>
    assertThrows(() => registry.add(plugin), PluginError, why) as PluginError;
  refused(made("test/none", { rate: undefined! }), "rate() is missing");
  refused(made("test/long", { abbreviation: "long" }), "its abbreviation is long");
  refused(made("test/other", { abbreviation: "f" }), 'abbreviated "f", as those of "test/falling"');
  refused(made("test/falling"), "same id");
  assert(
    refused(made("test/x", { kind: "shedule" as "schedule" }), "no loss, adapter, merge, family or schedule")
      .hint!
      .endsWith("defineAdapter, defineMerge, defineFamily or defineSchedule"),
  );
  const known: Registry<Kind> = new Registry<Kind>(KINDS);
  assertThrows(() => known.add(falling), PluginError, "it is no loss, adapter, merge or family");
});

Deno.test("a plugin of such a kind is described, checked and identified by the row", async () => {
  const { kind, role, options } = describePlugin(falling, kinds);
  assertEquals([kind, role, Object.keys(options!.properties!)], ["schedule", "schedule", ["power"]]);
  assertEquals(describePlugin(falling).role, null);

  const outcomes = (results: CheckResult[]) => results.map((r) => [r.check, r.outcome]);
  assertEquals(outcomes(await check(falling)), [
    ["contract", "pass"],
    ["options", "pass"],
    ["ends at zero", "pass"],
  ]);
  assertEquals(outcomes(await check(made("test/flat", { rate: () => 1 }))).at(-1), ["ends at zero", "fail"]);
  assertEquals(outcomes(await check(made("test/other", { abbreviation: "f" }), [falling])), [
    ["contract", "fail"],
  ]);

  const power = (exponent: number) => made("test/power", { rate: (done) => (1 - done) ** exponent });
  assertEquals(pluginIdentity(power(2), {}, kinds), pluginIdentity(power(2), {}, kinds));
  assertNotEquals(pluginIdentity(power(2), {}, kinds), pluginIdentity(power(3), {}, kinds));
});

Deno.test("a plugin of such a kind is begun from the row's template", () => {
  assertEquals(newPlugin(schedule, "my-own", "./a.ts"), "// my-own in ./a.ts: my_own\n");
});

Deno.test("every row names a function of the contract that makes its plugins, and begins one with it", async () => {
  const contract: Record<string, unknown> = { ...await import("../../src/registry/contract.ts") };
  for (const kind of KINDS) {
    const define = contract[kind.define] as (definition: object) => AnyPlugin;
    assertEquals(define({}).kind, kind.id);
    assert(newPlugin(kind, "my-own", "./a.ts").includes(`export default ${kind.define}({`), kind.id);
  }
});

/** Made when the kinds were first put into a table: a run that was begun before goes on with the same plugins. */
const IDENTITIES: Readonly<Record<string, string>> = {
  "forward-kl": "c8977f930c2175ba94c5bb945f16f8a1dd3d6104b16728b5db9ae74ab34eba35",
  "jensen-shannon": "0196bdb433a41f0a1cfbbeeab22b7d52f4441d87e4b01b887e916460d6770d7c",
  "taid": "09b98636b17eeb64c6a99f2eddb781bd953e3b8747abfc4310ee3eaa0117e578",
  "pairwise-ranking": "c762c1405330ac4b28d7407676bd613c90ed1e7d233fbe4fcf7e4c2868d04637",
  "hidden-state-mse": "434d120f1c20c4936e477e13ace0b435de4ac2c5b03969564a3cedeeccc9de3d",
  "lora": "48890541cec921570d66529513b6aba97c66a7b38f7059ed46f7f67ca7a26c94",
};

Deno.test("the identities of built-in plugins are what they were", () => {
  for (const [id, hash] of Object.entries(IDENTITIES)) {
    assertEquals(sha256(pluginIdentity(builtins.find((p) => p.id === id)!)), hash, id);
  }
});
