/**
 * What the controller of a loss must do: set what it says it sets to values the schema allows, be pure, and remember plain JSON.
 *
 * @module
 */
import type {
  ControlledStep,
  Controller,
  ControllerState,
  Divergence,
  RowLoss,
} from "../../losses/contract.ts";
import { CheckFailure, type Checklist, CheckSkipped } from "./checklist.ts";

/** Steps of a run that the controller is led through. */
const STEPS = 40;

/** Courses of a loss: what a run may show, and what it should not. */
const COURSES: Readonly<Record<string, (step: number) => number>> = {
  "falling": (step) => 3 * Math.exp(-step / 10),
  "rising": (step) => 0.1 * 1.2 ** step,
  "jumping": (step) => (step % 2 ? 5 : 0.01),
  "zero": () => 0,
  "tiny": (step) => 1e-30 / (step + 1),
  "huge": (step) => 1e30 * (step + 1),
};

/** Checks the controller of a loss, if it has one. */
export async function checkController(
  loss: Divergence | RowLoss,
  options: Readonly<Record<string, unknown>>,
  list: Checklist,
): Promise<void> {
  const { controller } = loss;
  if (!controller) return;
  await list.step("controller", () => {
    for (const name of controller.sets) {
      if (loss.scheduled?.includes(name)) continue;
      throw new CheckFailure(`it sets "${name}", which is no scheduled option`, {
        hint: "List the option in scheduled.",
      });
    }
    const start = controller.start(options);
    if (!start) throw new CheckSkipped("these options do not ask for it");
    checkValues(loss, controller, controller.heldOut(options), options, "for held-out samples");
    for (const [course, at] of Object.entries(COURSES)) {
      checkCourse(loss, controller, start, options, course, at);
    }
    return `sets ${controller.sets.join(", ")}; pure, and its state is JSON, on losses that are ${
      Object.keys(COURSES).join(", ")
    }`;
  }, "Every function of a controller must take any finite loss.");
}

function checkCourse(
  loss: Divergence | RowLoss,
  controller: Controller,
  start: ControllerState,
  options: Readonly<Record<string, unknown>>,
  course: string,
  at: (step: number) => number,
): void {
  let state = start;
  for (let step = 0; step <= STEPS; step++) {
    const where = `before step ${step + 1} of a ${course} loss`;
    checkState(state, where);
    checkValues(loss, controller, controller.values(state, options), options, where);
    if (step === STEPS) return;
    const value = at(step);
    const measured = Object.fromEntries(
      (controller.measures ?? []).map(({ id }, i) => [id, value * (i + 1)]),
    );
    const done: ControlledStep = Object.freeze({
      value,
      measured: Object.freeze(measured),
      step,
      steps: STEPS,
    });
    const next = controller.next(Object.freeze({ ...state }), done, options);
    if (
      JSON.stringify(controller.next(JSON.parse(JSON.stringify(state)), done, options)) !==
        JSON.stringify(next)
    ) {
      throw new CheckFailure(`next() gives two different states for one, ${where}`, {
        hint:
          "Keep all it remembers in the state, and use no random numbers: a resumed run must go on the same.",
      });
    }
    state = next;
  }
}

function checkState(state: ControllerState, where: string): void {
  for (const [name, value] of Object.entries(state)) {
    if (value === null || (typeof value === "number" && Number.isFinite(value))) continue;
    throw new CheckFailure(`"${name}" of its state is ${value} ${where}`, {
      hint: "A state holds finite numbers and null: what JSON can hold.",
    });
  }
}

function checkValues(
  loss: Divergence | RowLoss,
  { sets }: Controller,
  values: Readonly<Record<string, number>>,
  options: Readonly<Record<string, unknown>>,
  where: string,
): void {
  const names = Object.keys(values);
  if (names.length !== sets.length || !sets.every((name) => names.includes(name))) {
    throw new CheckFailure(`it gives values of ${names.join(", ") || "nothing"} ${where}`, {
      hint: `It says that it sets ${sets.join(", ")}.`,
    });
  }
  const parsed = loss.options.safeParse({ ...options, ...values });
  if (parsed.success) return;
  throw new CheckFailure(`its values ${JSON.stringify(values)} ${where} are refused by the schema`, {
    hint: parsed.error.issues.map((i) => `${i.path.join(".")}: ${i.message}`).join("; "),
  });
}
