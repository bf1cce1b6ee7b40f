/**
 * The training process: runs the trainer as it is ordered to, and says what happens as events.
 *
 * @module
 */
// @ts-types="../../../../types/std_path.d.ts"
import { join } from "@std/path";
import type { RunControl, RunEventBody, RunHost } from "../../../distill/run/events.ts";
import type { RunResult } from "../../../distill/export/exports.ts";
import { type Recipe } from "../../../distill/recipe/recipe.ts";
import { parseRecipe } from "../../../distill/recipe/parse.ts";
import type { Registry } from "../../../registry/registry.ts";
import { LimbeckError } from "../../../base/errors.ts";
import { encodeLine } from "../lines.ts";
import { type Port, serve } from "./port.ts";
import { errorEvent } from "../told_error.ts";
import { ALIVE_LOCK, isCounted, type TrainingOrder, UNSENT_FILE } from "../training.ts";

/** The trainer: does one attempt at a run. */
export type Trainer<Plugins = Registry, R = Recipe> = (
  recipe: R,
  host: RunHost<Plugins>,
) => Promise<RunResult>;

/**
 * Runs `trainer` as this process's only work and ends the process: exit code 0, or that of the error.
 *
 * @param registry losses and adapters; a function, so that a plugin refused by the registry is reported like any other error
 * @param parse checks what the run is to do
 */
export function runChild<Plugins>(
  trainer: Trainer<Plugins>,
  registry: () => Promise<Plugins>,
): Promise<never>;
export function runChild<Plugins, R>(
  trainer: Trainer<Plugins, R>,
  registry: () => Promise<Plugins>,
  parse: (value: unknown, where: string) => R,
): Promise<never>;
export function runChild<Plugins, R>(
  trainer: Trainer<Plugins, R>,
  registry: () => Promise<Plugins>,
  parse = parseRecipe as (value: unknown, where: string) => R,
): Promise<never> {
  let attempt: Attempt | undefined;
  return serve<TrainingOrder>(async (order, port) => {
    attempt = new Attempt(order, port);
    const { folder, resume, resumeLimit, profile, evaluations, caches, tuning } = order;
    const recipe = parse(order.recipe, join(folder, "recipe.json"));
    using alive = await Deno.open(join(folder, ALIVE_LOCK), { read: true, write: true, create: true });
    if (!await alive.tryLock(true)) {
      throw new LimbeckError(`${folder}: another training process works on this run`);
    }
    tellHolder(alive);
    const { emit, control } = attempt;
    const host = {
      ...{ folder, resume, resumeLimit, profile, registry: await registry(), emit, control },
      ...(evaluations === undefined ? {} : { evaluations }),
      ...(caches === undefined ? {} : { caches }),
      ...(tuning === undefined ? {} : { tuning }),
    };
    emit({ type: "result", result: await trainer(recipe, host) });
  }, (error, port) => {
    const debug = attempt?.debug ?? false;
    const event = errorEvent(error, debug);
    if (!(error instanceof LimbeckError) || debug) console.error(error);
    if (attempt) attempt.emit(event);
    else port.say(event);
    return event.exitCode;
  });
}

/** Writes into the lock who holds it, for people. */
function tellHolder(file: Deno.FsFile): void {
  try {
    file.truncateSync(0);
    file.writeSync(new TextEncoder().encode(`process ${Deno.pid}\n`));
  } catch {
    // On a full disk it is locked all the same.
  }
}

/** What the trainer says and is asked. */
class Attempt {
  readonly debug: boolean;
  readonly #folder: string;
  readonly #port: Port;
  #control: RunControl = "run";
  #counted = 0;

  constructor({ folder, debug }: TrainingOrder, port: Port) {
    this.#folder = folder;
    this.debug = debug;
    this.#port = port;
    void this.#listen();
  }

  readonly emit = (event: RunEventBody): void => {
    if (isCounted(event)) this.#counted++;
    if (this.#port.say(event)) return;
    // Nobody listens any more: save and end.
    this.#control = "stop";
    if (isCounted(event)) this.#keep(event);
  };

  readonly control = (): RunControl => {
    const asked = this.#control;
    if (asked === "checkpoint") this.#control = "run";
    return asked;
  };

  #keep(event: RunEventBody): void {
    try {
      const line = encodeLine({ n: this.#counted, event });
      Deno.writeFileSync(join(this.#folder, UNSENT_FILE), line, { append: true });
    } catch {
      // The next attempt then continues from an earlier checkpoint.
    }
  }

  async #listen(): Promise<void> {
    for await (const word of this.#port.orders) {
      if (word === "pause" || word === "stop") this.#control = "stop";
      else if (word === "checkpoint" && this.#control === "run") this.#control = "checkpoint";
    }
    // The parent is gone.
    this.#control = "stop";
  }
}
