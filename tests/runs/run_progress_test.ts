// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertThrows } from "@std/assert";
import type { RunEvent, RunEventBody, RunState, StateEvent } from "../../src/distill/run/events.ts";
import {
  afterAsking,
  afterEvent,
  afterLog,
  NO_PROGRESS,
  secondsWorked,
} from "../../src/runs/store/run_progress.ts";
import { RUN_STATES } from "../../src/runs/store/run_states.ts";
import type { RunProgress, RunRequest } from "../../src/runs/store/store.ts";
import { RunStateError } from "../../src/runs/store/store_errors.ts";

type Run = RunProgress & { readonly id: string };

const TIME = "2026-01-01T00:00:10.000Z";
const EARLIER = "2026-01-01T00:00:00.000Z";
const ERROR = { type: "error", code: "device", message: "lost", exitCode: 4 } as const;
const RESULT = { status: "paused", steps: 4 } as never;

/** A run of which everything is set, so that whatever changes shows. */
const full = (state: RunState): Run => ({
  ...{ id: "r", state, asked: "pause", restarts: 2, seq: 7, attempt: 3, step: 4, loss: 1.5 },
  ...{ startedAt: EARLIER, finishedAt: EARLIER, result: RESULT, error: ERROR },
});
const stamped = (body: RunEventBody, seq = 8, attempt = 3, time = TIME): RunEvent => ({
  ...{ seq, time, attempt },
  ...body,
});
const NEXT: Run = { ...full("queued"), seq: 8 };

/** All ways from one state to another, and what they change beside it. Nothing else is a way. */
const WAYS: Record<string, Partial<RunProgress>> = {
  "queued running": { finishedAt: null, error: null },
  "queued cancelled": { finishedAt: TIME, asked: null, error: null },
  "queued failed": { finishedAt: TIME, asked: null },
  "running succeeded": { finishedAt: TIME, asked: null, error: null },
  "running failed": { finishedAt: TIME, asked: null },
  "running cancelled": { finishedAt: TIME, asked: null, error: null },
  "running paused": { finishedAt: TIME, asked: null },
  "running interrupted": {},
  "paused queued": { finishedAt: null, asked: null, restarts: 0 },
  "paused cancelled": { finishedAt: TIME, asked: null, error: null },
  "interrupted queued": { finishedAt: null, restarts: 3 },
  "interrupted queued request": { finishedAt: null, asked: null, restarts: 0 },
  "interrupted queued service-end": { finishedAt: null },
  "interrupted cancelled": { finishedAt: TIME, asked: null, error: null },
  "interrupted failed": { finishedAt: TIME, asked: null },
  "failed queued": { finishedAt: null, asked: null, restarts: 0 },
};

Deno.test("every state and every event of a state: where a run comes to, or that it cannot", () => {
  let ways = 0;
  for (const from of RUN_STATES) {
    for (const to of RUN_STATES) {
      for (const by of [undefined, "request", "service-end"] as const) {
        const event = stamped({ type: "state", state: to, ...(by ? { by } : {}) });
        const changes = WAYS[`${from} ${to} ${by}`] ?? WAYS[`${from} ${to}`];
        const before = full(from);
        const frozen = structuredClone(before);
        if (changes) {
          assertEquals(afterEvent(before, event), { ...NEXT, state: to, ...changes }, `${from} ${to} ${by}`);
          ways++;
        } else {
          const error = assertThrows(() => afterEvent(before, event), RunStateError) as RunStateError;
          const what = { queued: "be resumed", cancelled: "be cancelled" }[to as string] ?? `become ${to}`;
          assertEquals([error.state, error.message], [from, `run r is ${from} and cannot ${what}`]);
        }
        assertEquals(before, frozen, "what was is left as it was");
        // A log of another machine is believed.
        assertEquals(afterLog(before, [event]).state, to);
      }
    }
  }
  assertEquals(ways, 14 * 3);
});

Deno.test("every state and every other event: what shows in the run", () => {
  const rates = {
    learningRate: 1,
    gradientNorm: 1,
    supervisedTokens: 1,
    tokensPerSecond: 1,
    secondsPerStep: 1,
  };
  const metrics = { type: "metrics", step: 5, loss: 2, losses: {}, ...rates } as const;
  const result = { status: "succeeded", steps: 5 } as never;
  const events: [RunEventBody, Partial<RunProgress>][] = [
    [metrics, { step: 5, loss: 2 }],
    [{ ...metrics, loss: NaN }, { step: 5, loss: null }],
    [{ type: "rewind", step: 2 }, { step: 2, loss: null }],
    [{ type: "rewind", step: -1 }, { step: 0, loss: null }],
    [{ type: "result", result }, { result }],
    [{ ...ERROR, code: "other" }, { error: { ...ERROR, code: "other" } }],
    [{ type: "checkpoint", step: 9, path: "p", best: true }, {}],
    [{ type: "evaluation", step: 9, model: "student", loss: 1, losses: {}, tokens: 1 }, {}],
    [{ type: "sample", step: 9, model: "student", prompt: "p", text: "t" }, {}],
    [{ type: "stage", stage: "load", message: "m" }, {}],
    [{ type: "warning", code: "w", message: "m" }, {}],
    [{ type: "profile", kernels: [] }, {}],
    [{ type: "plan" } as never, {}],
    [{ type: "heartbeat" }, {}],
  ];
  for (const state of RUN_STATES) {
    for (const [body, changes] of events) {
      const expected = { ...NEXT, state, attempt: 4, ...changes };
      assertEquals(afterEvent(full(state), stamped(body, 8, 4)), expected, `${state} ${body.type}`);
    }
    assertEquals(afterEvent(full(state), stamped(events[0]![0], 8, 1)).attempt, 3, "attempts only rise");
  }
});

Deno.test("a run's first event says that it is queued, and counts nothing", () => {
  const event = stamped({ type: "state", state: "queued" }, 1, 0);
  assertEquals(afterEvent({ id: "r", ...NO_PROGRESS }, event), { id: "r", ...NO_PROGRESS, seq: 1 });
  const running = stamped({ type: "state", state: "running" }, 2, 1);
  const run = afterLog({ id: "r", ...NO_PROGRESS }, [event, running]);
  assertEquals([run.state, run.startedAt, run.attempt, run.restarts], ["running", TIME, 1, 0]);
});

Deno.test("every state and everything that can be asked of a run", () => {
  for (const state of RUN_STATES) {
    for (const request of ["checkpoint", "pause", "cancel"] as RunRequest[]) {
      if (state === "running") {
        assertEquals(afterAsking(full(state), request), { ...full(state), asked: request });
        const cancelled: Run = { ...full(state), asked: "cancel" };
        assertEquals(afterAsking(cancelled, request), cancelled, "cancelling is for good");
      } else assertThrows(() => afterAsking(full(state), request), RunStateError, `is ${state}`);
    }
    assertEquals(afterAsking(full(state), null).asked, null);
  }
});

Deno.test("secondsWorked() counts attempts since someone asked, one that was cut off up to its last word", () => {
  const log: RunEvent[] = [];
  const at = (second: number, body: RunEventBody | StateEvent) =>
    log.push(stamped(body, log.length + 1, 1, new Date(second * 1000).toISOString()));
  const warning: RunEventBody = { type: "warning", code: "w", message: "" };
  assertEquals(secondsWorked(log), 0);
  at(0, { type: "state", state: "queued" });
  at(100, { type: "state", state: "running" });
  at(107, warning);
  // Nobody noticed for long: the service had been killed, too.
  at(1000, { type: "state", state: "interrupted" });
  assertEquals(secondsWorked(log), 7);
  at(1001, { type: "state", state: "queued" });
  at(1100, { type: "state", state: "running" });
  at(1105, warning);
  at(1106, { type: "state", state: "interrupted" });
  at(1106, { type: "state", state: "queued", by: "service-end" });
  assertEquals(secondsWorked(log), 12);
  at(1200, { type: "state", state: "running" });
  at(1203, { type: "state", state: "failed" });
  assertEquals(secondsWorked(log), 15);
  at(1300, { type: "state", state: "queued", by: "request" });
  assertEquals(secondsWorked(log), 0);
});
