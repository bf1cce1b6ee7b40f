/**
 * The training process: reads its orders on stdin, runs the trainer, and says what happens as events on stdout.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import type { RunControl, RunEventBody, RunHost } from "../../distill/run/events.ts";
import type { RunResult } from "../../distill/export/exports.ts";
import { type Recipe } from "../../distill/recipe/recipe.ts";
import { parseRecipe } from "../../distill/recipe/parse.ts";
import { LimbeckError } from "../../base/errors.ts";
import { errorEvent } from "./error_event.ts";
import { isCounted, readLines, type StartMessage, UNSENT_FILE } from "./training.ts";

/** The trainer: does one attempt at a run. */
export type Trainer = (recipe: Recipe, host: RunHost) => Promise<RunResult>;

/** The file whose lock tells that a training process lives, even when the one that started it is gone. */
export const ALIVE_LOCK = "child/alive.lock";

/**
 * Runs `trainer` as this process's only work and ends the process: exit code 0, or that of the error.
 *
 * @param registry losses and adapters; a function, so that a plugin refused by the registry is reported like any other error
 */
export async function runChild(trainer: Trainer, registry: () => unknown | Promise<unknown>): Promise<never> {
  // Stdout carries events only.
  console.log = console.info = console.debug = console.error;
  const orders = new Orders();
  let debug = false;
  const fail = (error: unknown): never => {
    const event = errorEvent(error, debug);
    if (!(error instanceof LimbeckError) || debug) console.error(error);
    orders.emit(event);
    Deno.exit(event.exitCode);
  };
  globalThis.addEventListener("error", (event) => fail(event.error));
  globalThis.addEventListener("unhandledrejection", (event) => fail(event.reason));
  try {
    const start = await orders.start();
    debug = start.debug;
    const recipe = parseRecipe(start.recipe, join(start.folder, "recipe.json"));
    using alive = await Deno.open(join(start.folder, ALIVE_LOCK), { read: true, write: true, create: true });
    if (!await alive.tryLock(true)) {
      throw new LimbeckError(`${start.folder}: another training process works on this run`);
    }
    tellHolder(alive);
    const result = await trainer(recipe, {
      folder: start.folder,
      resume: start.resume,
      resumeLimit: start.resumeLimit,
      profile: start.profile,
      registry: await registry(),
      emit: (event) => orders.emit(event),
      control: () => orders.control(),
    });
    orders.emit({ type: "result", result });
  } catch (error) {
    fail(error);
  }
  // GPU objects may keep the process alive.
  Deno.exit(0);
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

/** Stdin and stdout of the process. */
class Orders {
  readonly #lines = readLines(Deno.stdin.readable);
  #control: RunControl = "run";
  #folder: string | undefined;
  #counted = 0;

  /** The first line; the others are read in the background from then on. */
  async start(): Promise<StartMessage> {
    const { value } = await this.#lines.next();
    if (value === undefined) throw new LimbeckError("the training process got no orders on stdin");
    this.#listen();
    const start: StartMessage = JSON.parse(value);
    this.#folder = start.folder;
    return start;
  }

  emit(event: RunEventBody): void {
    if (isCounted(event)) this.#counted++;
    const bytes = new TextEncoder().encode(JSON.stringify(event) + "\n");
    try {
      // Synchronous, so that nothing is lost however the process ends.
      for (let done = 0; done < bytes.length;) done += Deno.stdout.writeSync(bytes.subarray(done));
    } catch {
      // Nobody listens any more: save and end.
      this.#control = "stop";
      if (isCounted(event)) this.#keep(event);
    }
  }

  #keep(event: RunEventBody): void {
    if (this.#folder === undefined) return;
    try {
      const line = JSON.stringify({ n: this.#counted, event }) + "\n";
      Deno.writeTextFileSync(join(this.#folder, UNSENT_FILE), line, { append: true });
    } catch {
      // The next attempt then continues from an earlier checkpoint.
    }
  }

  control(): RunControl {
    const asked = this.#control;
    if (asked === "checkpoint") this.#control = "run";
    return asked;
  }

  async #listen(): Promise<void> {
    for await (const line of this.#lines) {
      if (line === "pause" || line === "stop") this.#control = "stop";
      else if (line === "checkpoint" && this.#control === "run") this.#control = "checkpoint";
    }
    // The parent is gone.
    this.#control = "stop";
  }
}
