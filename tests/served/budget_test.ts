// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertThrows } from "@std/assert";
import { Budget, BudgetError } from "../../src/served/budget.ts";
import { type Clock, Pace } from "../../src/served/pace.ts";

Deno.test("a budget holds over restarts and kills, and what nobody saw the end of counts whole", async () => {
  const path = await Deno.makeTempFile();
  try {
    const limits = { tokens: 100, requests: 5 };
    const first = Budget.open(limits, path);
    first.spend(40)(30);
    first.spend(20);
    // Killed here: the second request's end was not seen.
    first.close();
    const second = Budget.open(limits, path);
    assertEquals(second.used, { requests: 2, tokens: 50 });
    assertThrows(() => second.spend(51), BudgetError, "allows 100 tokens; 50 are used");
    second.spend(50)(0);
    second.spend(1)(1);
    second.close();
    // Killed while it wrote a line.
    await Deno.writeTextFile(path, '{"n":99,"tok', { append: true });
    const third = Budget.open(limits, path);
    assertEquals(third.used, { requests: 4, tokens: 51 });
    third.spend(1)(1);
    assertThrows(() => third.spend(1), BudgetError, "all 5 requests");
    third.close();
    assertEquals(Budget.open({}, path).used, { requests: 5, tokens: 52 });
  } finally {
    await Deno.remove(path);
  }
});

/** A clock on which waiting takes no time. */
class FakeClock implements Clock {
  #now = 0;
  now(): number {
    return this.#now;
  }
  wait(milliseconds: number): Promise<void> {
    this.#now += milliseconds;
    return Promise.resolve();
  }
}

Deno.test("no minute has more requests or tokens than may be", async () => {
  for (const [limits, tokens] of [[{ requestsPerMinute: 30 }, 1], [{ tokensPerMinute: 300 }, 10]] as const) {
    const clock = new FakeClock();
    const pace = new Pace({ concurrency: 1, ...limits }, clock);
    const begun: number[] = [];
    await Promise.all(Array.from({ length: 100 }, () =>
      pace.turn(tokens, () => {
        begun.push(clock.now());
        return Promise.resolve();
      })));
    for (const from of begun) {
      const within = begun.filter((at) => at >= from && at < from + 60_000).length;
      if (within > 30) throw new Error(`${within} within a minute`);
    }
    assertEquals(begun.length, 100);
  }
});

Deno.test("all wait where the server asks for it", async () => {
  const clock = new FakeClock();
  const pace = new Pace({ concurrency: 2 }, clock);
  pace.holdBack(5000);
  await pace.turn(1, () => Promise.resolve());
  assertEquals(clock.now(), 5000);
});
