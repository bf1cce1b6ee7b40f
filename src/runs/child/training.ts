/**
 * What parent and training process say to each other: one order, then control words, whose end means stop; events come back. The child's
 * console goes to stderr.
 *
 * @module
 */
import type { RunEventBody, RunTuning } from "../../distill/run/events.ts";
import { isTask, type RunRecipe } from "../task/run_recipe.ts";
import { readMessage } from "./lines.ts";

/** What the process of a run is to do. */
export interface TrainingOrder {
  recipe: RunRecipe;
  folder: string;
  /** Whether to continue from a checkpoint. */
  resume: boolean;
  /** Step of the newest checkpoint that may be continued from; -1 for none. */
  resumeLimit: number;
  /** Whether error events carry stacks. */
  debug: boolean;
  /** Whether each kernel is measured. */
  profile: boolean;
  /** Folder of what was measured of shapes, where the run may use it. */
  evaluations?: string;
  /** Folder of teachers' caches, where the run may use it. */
  caches?: string;
  /** What is known of the kernels of devices, and whether more may be found out. */
  tuning?: RunTuning;
}

/**
 * A further order: save and go on; save and end, to be continued when someone asks; save and end, whatever
 * comes of it. To the child the last two are one: what becomes of the run is its supervisor's to decide.
 */
export type ControlWord = "checkpoint" | "pause" | "stop";

/** The module that does what a run is to do. */
export function runEntry(recipe: RunRecipe): string {
  const name = isTask(recipe) ? "task_entry" : "train_entry";
  return new URL(`./inside/${name}.ts`, import.meta.url).href;
}

/** The file whose lock tells that a training process lives, even when the one that started it is gone. */
export const ALIVE_LOCK = "child/alive.lock";

/**
 * Where a child keeps the events that nobody took: `{"n", "event"}` a line, `n` counting the attempt's {@linkcode isCounted} events from 1.
 * When nothing is missing between them and the log, the next supervisor stores them.
 */
export const UNSENT_FILE = "child/unsent.jsonl";

/** The stage in which a run waits for something: its supervisor tells of it, not the child. */
export const WAITING = "waiting";

/** Whether an event of a child reaches the log, as far as it is well formed. */
export function isCounted(event: RunEventBody): boolean {
  if (event.type === "stage") return event.stage !== WAITING;
  return event.type !== "heartbeat" && event.type !== "state";
}

/** What each type of event must have, by name of the field and `typeof`; `number?` may also be null, for values that are not finite. */
const FIELDS: { readonly [type in RunEventBody["type"]]: Readonly<Record<string, string>> } = {
  state: { state: "string" },
  plan: {
    adapterName: "string",
    bytes: "object",
    totalBytes: "number",
    parameters: "object",
    steps: "number",
  },
  stage: { stage: "string", message: "string" },
  metrics: {
    step: "number",
    loss: "number?",
    losses: "object",
    learningRate: "number",
    secondsPerStep: "number?",
  },
  progress: { step: "number", message: "string" },
  evaluation: { step: "number", model: "string", loss: "number?", losses: "object", tokens: "number" },
  rollout: {
    ...{ step: "number", answers: "number", tokens: "number", meanLength: "number", atLimit: "number" },
    ...{ entropy: "number?", repetition: "number", seconds: "number" },
  },
  sample: { step: "number", model: "string", prompt: "string", text: "string" },
  checkpoint: { step: "number", path: "string", best: "boolean" },
  rewind: { step: "number" },
  warning: { code: "string", message: "string" },
  error: { code: "string", message: "string", exitCode: "number" },
  profile: { kernels: "object" },
  shapes: { step: "number", shapes: "object" },
  teachers: { combine: "string", teachers: "object" },
  tuned: { device: "object", choices: "object", left: "number", seconds: "number" },
  heartbeat: {},
  result: { result: "object" },
};

/**
 * Reads an event from a line of the child's stdout.
 *
 * @returns undefined where the line is no event: something printed past the console
 */
export function parseEvent(line: string): RunEventBody | undefined {
  const record = readMessage<{ type: string; [field: string]: unknown }>(line);
  if (!record) return undefined;
  const fields = Object.hasOwn(FIELDS, record.type) ? FIELDS[record.type as RunEventBody["type"]] : undefined;
  if (!fields) return undefined;
  for (const [name, type] of Object.entries(fields)) {
    const found = record[name];
    const kind: string = typeof found;
    if (found === null ? type !== "number?" : kind !== type.replace("?", "")) return undefined;
  }
  return record as unknown as RunEventBody;
}
