/** Controllers alone: the rule of TAID against numbers of its published code, and what `plugin check` finds in ones that lie. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertStringIncludes } from "@std/assert";
import skewKl from "../../plugins/losses/skew_kl.ts";
import skewReverseKl from "../../plugins/losses/skew_reverse_kl.ts";
import taid from "../../plugins/losses/taid.ts";
import { Controllers } from "../../src/distill/objective/controllers.ts";
import { Checklist, type CheckResult } from "../../src/registry/check/checklist.ts";
import { checkController } from "../../src/registry/check/controllers.ts";
import type { Controller, Divergence } from "../../src/registry/contract.ts";
import { pluginIdentity } from "../../src/registry/identity.ts";
import type { ResolvedLoss } from "../../src/losses/traced.ts";

const term = (options: Record<string, unknown>, loss: Divergence = taid): ResolvedLoss => ({
  ...{ loss, options: loss.options.parse(options), name: "taid" },
  ...{ weight: 1, temperature: 1 },
});

/** t of each step, the one after the last included. */
function course(options: Record<string, unknown>, losses: readonly number[], steps: number): number[] {
  const controllers = new Controllers([term({ adaptive: true, ...options })], steps);
  const t = () => controllers.values().taid!.t!;
  return [t(), ...losses.map((loss, step) => (controllers.advance(step, { taid: loss }), t()))];
}

const LOSSES = [3, 2.5, 2.75, 2, 1];

Deno.test("TAID's rule gives the numbers of its published code, run by itself in double precision", () => {
  const cases: [Record<string, number>, number, number[]][] = [
    // The straight line is above what the loss asks for.
    [{}, 1000, [0.4, 0.4, 0.4006, 0.4012, 0.40180000000000005, 0.40240000000000004]],
    [
      { alpha: 0.3, beta: 0.5 },
      1000,
      [0.4, 0.4, 0.49374783136709377, 0.569369250887684, 0.6382272621253925, 0.7009991513358942],
    ],
    [{ alpha: 0.3, beta: 0.5, end: 0.9 }, 4, [0.4, 0.4, 0.525, 0.65, 0.775, 0.9]],
  ];
  for (const [options, steps, expected] of cases) {
    course(options, LOSSES, steps).forEach((t, i) =>
      assertAlmostEquals(t, expected[i]!, 1e-14, `t of step ${i}`)
    );
  }
});

Deno.test("TAID's t rises faster where the loss falls, begins at t and never passes its end", () => {
  const steps = Array.from({ length: 30 }, (_, i) => i);
  const options = { alpha: 0.5, beta: 0.5, t: 0.2, end: 0.8 };
  const falling = course(options, steps.map((i) => 0.5 ** i), 1000);
  const rising = course(options, steps.map((i) => 2 ** i), 1000);
  assertEquals([falling[0], falling[1], rising[0]], [0.2, 0.2, 0.2]);
  assert(falling[5]! > rising[5]! + 0.05, `${falling[5]} and ${rising[5]}`);
  assert(falling.every((t, i) => t <= 0.8 && t >= (falling[i - 1] ?? 0)));
  assertEquals(falling.at(-1), 0.8);
});

Deno.test("DistiLLM-2's curriculum lowers lambda as the two models' probabilities of the response come near", () => {
  // Means of log-probabilities of p and q; the last two are below the bounds and beyond them.
  const steps = [[0.5, 0.2], [0.7, 0.3], [0.7, 0.42], [0.6, 0.4], [0.4, 0.5]];
  // The fourth is 1 - 0.9 * 0.3 / (0.28 + 1e-5), worked out by itself.
  const expected = [0.1, 0.1, 0.1, 0.03574872325988343, 0.01, 0.1];
  for (
    const [loss, own, other] of [[skewKl, "teacher", "student"], [
      skewReverseKl,
      "student",
      "teacher",
    ]] as const
  ) {
    const make = (options: Record<string, unknown>) =>
      new Controllers([{ ...term(options, loss), name: "skew" }], steps.length);
    const controllers = make({ curriculum: true });
    const lambda = () => controllers.values().skew!.lambda!;
    const found = [lambda()];
    steps.forEach(([high, low], step) => {
      controllers.advance(step, {
        skew: 1,
        [`skew ${own}-log-likelihood`]: Math.log(high!),
        [`skew ${other}-log-likelihood`]: Math.log(low!),
      });
      found.push(lambda());
    });
    found.forEach((value, i) => assertAlmostEquals(value, expected[i]!, 1e-12, `${loss.id}, step ${i}`));
    assertEquals(make({}).active, false);
  }
});

Deno.test("Controllers continue from a state that went through JSON, and pass over steps without the loss", () => {
  const make = () => new Controllers([term({ adaptive: true, alpha: 0.3 })], 50);
  const [whole, first] = [make(), make()];
  LOSSES.slice(0, 3).forEach((loss, i) => [whole, first].forEach((c) => c.advance(i, { taid: loss })));
  const resumed = make();
  resumed.restore(JSON.parse(JSON.stringify(first.state())));
  for (const c of [whole, resumed]) {
    const before = c.state();
    const without: Record<string, number>[] = [{}, { taid: NaN }, { taid: Infinity }];
    for (const means of without) c.advance(3, means);
    assertEquals(c.state(), before);
    c.advance(4, { taid: 1.25 });
  }
  assertEquals(resumed.state(), whole.state());
  assertEquals([whole.active, new Controllers([term({})], 50).active], [true, false]);
});

Deno.test("a plugin's identity changes with its controller", () => {
  const { controller } = taid;
  const other = { ...taid, controller: { ...controller!, next: (state: unknown) => state } } as Divergence;
  assert(pluginIdentity(taid) !== pluginIdentity(other));
  const measures = [...skewKl.controller!.measures!].reverse();
  assert(
    pluginIdentity(skewKl) !== pluginIdentity({ ...skewKl, controller: { ...skewKl.controller!, measures } }),
  );
  assertEquals(pluginIdentity(taid), pluginIdentity({ ...taid, controller: { ...controller! } }));
});

async function check(changes: Partial<Controller>, options = { adaptive: true }): Promise<CheckResult> {
  const results: CheckResult[] = [];
  const list = new Checklist({ begin: () => {}, result: (r) => results.push(r) });
  const loss = { ...taid, controller: { ...taid.controller!, ...changes } };
  await checkController(loss, taid.options.parse(options), list);
  assertEquals(results.length, 1);
  return results[0]!;
}

Deno.test("plugin check passes an honest controller, and skips one that the options do not ask for", async () => {
  assertEquals((await check({})).outcome, "pass");
  for (const loss of [skewKl, skewReverseKl]) {
    const results: CheckResult[] = [];
    const list = new Checklist({ begin: () => {}, result: (r) => results.push(r) });
    await checkController(loss, loss.options.parse({ curriculum: true }), list);
    assertEquals(results.map(({ outcome }) => outcome), ["pass"], results[0]?.detail);
  }
  assertEquals((await check({}, { adaptive: false })).outcome, "skip");
});

let calls = 0;
const LIES: readonly [name: string, lie: Partial<Controller>, detail: string][] = [
  ["sets an option that is not scheduled", { sets: ["alpha"] }, '"alpha", which is no scheduled option'],
  ["leaves the schema", { values: (state) => ({ t: 1 + 1e-9 + state.t! }) }, "refused by the schema"],
  ["sets another option", { values: () => ({ alpha: 0.1 }) }, "values of alpha before step 1"],
  ["sets nothing for held-out samples", { heldOut: () => ({}) }, "nothing for held-out samples"],
  ["remembers outside of its state", {
    next: (state) => ({ ...state, momentum: calls++ }),
  }, "two different states"],
  ["divides by zero", {
    next: (state, { value }) => ({ ...state, momentum: 1 / value }),
  }, '"momentum" of its state is Infinity'],
  ["writes into the state it is given", {
    next: (state) => Object.assign(state as Record<string, number>, { momentum: 1 }),
  }, "TypeError"],
];
for (const [name, lie, detail] of LIES) {
  Deno.test(`plugin check names a controller that ${name}`, async () => {
    const { outcome, detail: found, hint } = await check(lie);
    assertEquals(outcome, "fail", found);
    assertStringIncludes(found, detail);
    assert(hint, "it does not say what to do");
  });
}
