/**
 * A trainer without a model, for tests of what surrounds one: counts steps, keeps a checkpoint of its count, and fails in the way that
 * the first loss's options ask for.
 */
import type { RunHost, ShapesEvent } from "../../src/distill/run/events.ts";
import type { RunResult } from "../../src/distill/export/exports.ts";
import type { Recipe } from "../../src/distill/recipe/recipe.ts";
import { DeviceError } from "../../src/base/errors.ts";
import { TUNING } from "../../src/distill/run/chosen_kernels.ts";
import { tunedChoice, tunedDevice } from "../tune/tuned.ts";
import { runChild } from "../../src/runs/child/inside/training_process.ts";
import type { PluginModule } from "../../src/registry/exported_plugins.ts";

/** How the fake trainer behaves. Steps count from 1. */
export interface Fault {
  /** Milliseconds a step. */
  pace?: number;
  /** Ends the process after this step without a word, in the first attempt. */
  exitAt?: number;
  /** The same in every attempt. */
  alwaysExitAt?: number;
  /** Blocks the event loop for ever after this step, in the first attempt. */
  hangAt?: number;
  /** Fails with a device error after this step. */
  throwAt?: number;
  /** Fails with a programming mistake after this step. */
  bugAt?: number;
  /** Prints to the console and straight to stdout. */
  noisy?: boolean;
  /** Tries what a training process must not do, and reports what worked. */
  intrude?: boolean;
  /** Never looks at what is asked of it. */
  deaf?: boolean;
  /** Notes a SIGTERM on the console, and does not end at it. */
  shrugs?: boolean;
  /** Measures teacher and student at the end; the student's loss is this and a hundredth of the seed. */
  measures?: number;
  /** Names of held-out sets that the student is measured on beside, each a tenth better than the one before. */
  sets?: string[];
  /** Steps after which six made-up shapes are measured, beside before the first and after the last. */
  shapesEvery?: number;
  /** Tells which of two teachers has which samples, and what each taught in every step. */
  teachers?: boolean;
  /** Steps between checkpoints that nobody asks for; 5 when absent. */
  checkpointEvery?: number;
  /** Tells what it knows of devices' kernels, and that it has measured those of one of that name. */
  tunes?: string;
  /** Ends without a word while it times kernels, wherever it may. */
  diesTuning?: boolean;
  /** Heartbeats instead of events for this many milliseconds before training. */
  beat?: number;
}

/** What it has for a registry: plugin modules as they are. */
type Plugins = { readonly name?: string }[];

async function train(recipe: Recipe, host: RunHost<Plugins>): Promise<RunResult> {
  const fault = faultOf(recipe);
  const folder = `${host.folder}/checkpoints`;
  await Deno.mkdir(folder, { recursive: true });
  host.emit({ type: "warning", code: "pid", message: String(Deno.pid) });
  let step = 0;
  if (host.resume) {
    const steps = [...Deno.readDirSync(folder)].map((entry) => Number(entry.name.slice(5)));
    step = Math.max(-1, ...steps.filter((step) => step <= host.resumeLimit));
    host.emit({ type: "rewind", step });
    step = Math.max(step, 0);
  }
  if (fault.noisy) {
    console.log("a library says hello");
    Deno.stdout.writeSync(new TextEncoder().encode('not an event\n{"type":"nonsense"}\n'));
  }
  if (fault.shrugs) Deno.addSignalListener("SIGTERM", () => console.error("a SIGTERM came"));
  if (fault.intrude) await intrude(host);
  const { kept = [], measure = "never" } = host.tuning ?? {};
  if (fault.tunes !== undefined) {
    const names = kept.map(({ device, choices }) => `${device.name} ${choices.length}`);
    host.emit({ type: "warning", code: "tuning", message: [measure, ...names].join("; ") });
    const [choice, device] = [tunedChoice(`choice ${kept.length}`), tunedDevice(fault.tunes)];
    host.emit({ type: "tuned", device, choices: [choice], left: 0, seconds: 1 });
  }
  if (fault.diesTuning && measure !== "never") {
    host.emit({ type: "stage", stage: TUNING, message: "timing kernels" });
    Deno.exit(7);
  }
  const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
  for (let spent = 0; spent < (fault.beat ?? 0); spent += 50) {
    await sleep(50);
    host.emit({ type: "heartbeat" });
  }
  if (step === 0) host.emit({ type: "evaluation", step, model: "student", loss: 3, losses: {}, tokens: 100 });
  const measureShapes = () => {
    if (fault.shapesEvery === undefined) return;
    host.emit({ type: "shapes", step, shapes: shapesAfter(step) });
  };
  if (step === 0) measureShapes();
  if (fault.teachers) {
    const ofBoth = { loss: 1.5, lossOfAll: 2.25 };
    host.emit({
      ...{ type: "teachers", combine: "best" },
      teachers: [
        { name: "whole", samples: 30, tokens: 900, ...ofBoth },
        { name: "<b>half</b>", samples: 10, tokens: 100, ...ofBoth, loss: null },
      ],
    });
  }
  const first = !host.resume;
  while (step < recipe.train.steps) {
    step++;
    host.emit({
      type: "metrics",
      step,
      loss: 3 / step,
      losses: Object.fromEntries([
        ...recipe.objective.map(({ loss }, i) => [loss, (4 + i) / step]),
        ["cross-entropy", step === 2 ? NaN : 3 / step],
      ]),
      learningRate: recipe.train.learningRate,
      gradientNorm: 1,
      supervisedTokens: 100,
      tokensPerSecond: 1000 * Math.random(),
      secondsPerStep: Math.random(),
      ...(fault.teachers
        ? {
          teachers: [
            { name: "whole", tokens: 75, loss: 3 / step },
            { name: "<b>half</b>", tokens: step === 1 ? 25 : 0, loss: step === 1 ? 2.5 : null },
          ],
        }
        : {}),
    });
    if (step % (fault.shapesEvery ?? 1) === 0) measureShapes();
    await sleep(fault.pace ?? 0);
    const asked = fault.deaf ? "run" : host.control();
    if (step % (fault.checkpointEvery ?? 5) === 0 || asked !== "run") {
      const name = `step-${String(step).padStart(6, "0")}`;
      await Deno.mkdir(`${folder}/${name}`, { recursive: true });
      host.emit({ type: "checkpoint", step, path: `checkpoints/${name}`, best: false });
    }
    if (asked === "stop") return result("paused", step);
    if (fault.alwaysExitAt === step || (first && fault.exitAt === step)) Deno.exit(7);
    if (first && fault.hangAt === step) { for (;;); }
    if (fault.throwAt === step) throw new DeviceError("the GPU was lost", { hint: "try again" });
    if (fault.bugAt === step) (undefined as unknown as { mistake(): void }).mistake();
  }
  if (fault.measures !== undefined) {
    const tokens = 100;
    host.emit({ type: "evaluation", step: 0, model: "teacher", loss: 1, losses: {}, tokens });
    const loss = fault.measures + recipe.train.seed / 100;
    const sets = fault.sets?.map((name, i) => [name, { loss: loss - i / 10, losses: {}, tokens }]);
    host.emit({
      ...{ type: "evaluation", step, model: "student", loss, tokens },
      ...(sets ? { sets: Object.fromEntries(sets) } : {}),
      losses: { "forward-kl": loss / 2, "top-1-agreement": 1 - loss / 10 },
    });
  }
  return result("succeeded", step);
}

/** A service checks options, so a fault can also be told as the source that a loss counts, or as the first prompt. */
function faultOf({ objective, samples }: Recipe): Fault {
  const { options, source } = objective[0]!;
  const told = source ?? samples.prompts[0];
  return told === undefined ? options as Fault : JSON.parse(told);
}

/** Three depths in two widths; the narrow ones have no speed, and two of all are beaten by the others. */
function shapesAfter(step: number): ShapesEvent["shapes"] {
  return [3, 2, 1].flatMap((depth) =>
    [1, 0.5].map((width) => ({
      name: `depth=${depth},width=${width}`,
      layers: Array.from({ length: depth }, (_, layer) => layer),
      ...{ width, parameters: 1e6 * (depth - (width === 1 ? 0 : 0.75)) },
      loss: 2 + (width === 1 ? 1 / depth : 1.1) / (1 + step),
      tokensPerSecond: width === 1 ? 1000 / depth : null,
    }))
  );
}

function result(status: "succeeded" | "paused", steps: number): RunResult {
  return {
    status,
    steps,
    heldOut: { teacher: 1, before: 3, after: 3 / steps, gapClosed: null, tokens: 100 },
    paths: {},
    peakBytes: { planned: 0, allocated: 0 },
    seconds: 0,
  };
}

async function intrude(host: RunHost<Plugins>): Promise<void> {
  const tries: Record<string, () => unknown> = {
    "read outside": () => Deno.readTextFileSync("/etc/passwd"),
    "write outside": () => Deno.writeTextFileSync(`${host.folder}/../outside`, ""),
    "write the dataset's folder": () => Deno.writeTextFileSync(`${host.folder}/../../data/x`, ""),
    network: () => Deno.connect({ port: 80 }),
    subprocess: () => new Deno.Command("true").outputSync(),
    environment: () => Deno.env.get("HOME"),
    ffi: () => Deno.dlopen("/usr/lib/libc.so", {}),
  };
  for (const [name, attempt] of Object.entries(tries)) {
    try {
      await attempt();
      host.emit({ type: "warning", code: "intruded", message: name });
    } catch (error) {
      if (!(error instanceof Deno.errors.NotCapable)) throw error;
    }
  }
}

/** Entry of the child. Plugins that export `name` are told. */
export function main(modules: readonly PluginModule[]): Promise<never> {
  return runChild<Plugins>((recipe, host) => {
    for (const { name } of host.registry) {
      if (name) host.emit({ type: "warning", code: "plugin", message: name });
    }
    return train(recipe, host);
  }, () => Promise.all(modules.map((module) => module.load())));
}
