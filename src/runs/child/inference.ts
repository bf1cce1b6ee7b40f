/**
 * Writes text with a model in a process of its own, which may read that model and nothing else, ends by itself when it is not used, and
 * is ended when it hangs.
 *
 * @module
 */
import type { Recipe } from "../../distill/recipe/recipe.ts";
import { LimbeckError } from "../../base/errors.ts";
import type { ChatMessage } from "../../text/dataset.ts";
import type { TunedDevice } from "../../tune/tuned.ts";
import { type Child, type ChildEnd, errorOf, howItEnded, isTold, startAlone } from "./host.ts";
import { machineProvider } from "./provider/choice.ts";
import type { ToldError } from "./told_error.ts";
import type { ToldScores } from "./told_scores.ts";

/** Whose text it is: a model's by its path, or that of a run's student with its adapter, as of a step or of the last checkpoint. */
export type InferenceModel =
  | { readonly path: string }
  | { readonly folder: string; readonly recipe: Recipe; readonly step?: number };

/** What is to be written. */
export interface InferenceRequest {
  /** A text to continue, its token ids, or a conversation. */
  readonly prompt: string | { readonly ids: readonly number[] } | readonly ChatMessage[];
  /** 0 writes nothing. */
  readonly maxTokens: number;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly seed: number;
  /** Texts before which it ends. */
  readonly stop: readonly string[];
  /** Tells, when the text is whole, what the model says of each token of prompt and text, with so many of the likeliest ones. */
  readonly scores?: number;
  /** Instead of all that: what the model's head reads at each token of the prompt; or the head itself. */
  readonly instead?: "hidden states" | "head";
}

/** What comes of a request. */
export type InferenceEvent =
  | { readonly type: "text"; readonly text: string }
  | { readonly type: "scores"; readonly scores: ToldScores }
  /** f32 [promptTokens, width], base64. */
  | { readonly type: "hidden"; readonly width: number; readonly states: string }
  /** A file of the head's folder begins. */
  | { readonly type: "file"; readonly name: string; readonly bytes: number }
  /** A piece of it, base64. */
  | { readonly type: "piece"; readonly bytes: string }
  | {
    readonly type: "end";
    readonly finishReason: "stop" | "length" | "cancelled";
    readonly promptTokens: number;
    readonly completionTokens: number;
  };

/** What the process is told first: its model, and what devices have chosen among kernels. */
export interface InferenceStart {
  readonly model: InferenceModel;
  readonly tuned: readonly TunedDevice[];
}

/** What the process is told once its model is ready. */
export type InferenceOrder =
  | { readonly id: number; readonly request: InferenceRequest }
  | { readonly cancel: number };

/** What the process says. */
export type InferenceMessage =
  | { readonly type: "alive" }
  /** Its kernels that are others than stand first, by what they are for. */
  | { readonly type: "ready"; readonly kernels: Readonly<Record<string, string>> }
  | { readonly type: "event"; readonly id: number; readonly event: InferenceEvent }
  | { readonly type: "failed"; readonly id: number; readonly error: ToldError }
  | ({ readonly type: "error" } & ToldError);

/** How the process is run. */
export interface InferenceOptions {
  readonly model: InferenceModel;
  /** Plugin modules of a run: absolute paths, and packages with their version. */
  readonly plugins?: readonly string[];
  /** What was measured of kernels on devices (default nothing). */
  readonly tuned?: readonly TunedDevice[];
  /** Without a request for so long, the process ends (default 60). */
  readonly idleSeconds?: number;
  /** Without a sign of life for so long while it works, it is ended (default 120). */
  readonly watchdogSeconds?: number;
}

/** The process is gone. */
export class InferenceEndedError extends LimbeckError {
  override readonly code = "inference_ended";
}

/** A request whose answer is being written. */
interface Waiting {
  readonly events: InferenceEvent[];
  error?: Error;
  wake: () => void;
}

/** A process that writes. */
export class InferenceProcess {
  /** Fulfilled when it has ended. */
  readonly ended: Promise<void>;
  readonly #child: Child<InferenceMessage>;
  readonly #waiting = new Map<number, Waiting>();
  readonly #options: InferenceOptions;
  readonly #ready = Promise.withResolvers<void>();
  #kernels: Readonly<Record<string, string>> = {};
  #next = 1;
  #idle: ReturnType<typeof setTimeout> | undefined;
  #end: ChildEnd | undefined;

  private constructor(child: Child<InferenceMessage>, options: InferenceOptions) {
    this.#child = child;
    this.#options = options;
    this.#ready.promise.catch(() => {});
    this.ended = this.#listen();
  }

  /**
   * Starts a process and waits until its model is ready.
   *
   * @throws {InputError} the model cannot be used
   * @throws {DeviceError} there is no GPU, or it does not fit
   */
  static async start(options: InferenceOptions): Promise<InferenceProcess> {
    const { model, plugins = [], tuned = [] } = options;
    const order: InferenceStart = { model, tuned };
    const process = new InferenceProcess(
      await startAlone<InferenceMessage>({
        entry: new URL("./inside/inference_entry.ts", import.meta.url).href,
        ...{ order, plugins },
        heapMegabytes: 2048,
        provider: machineProvider(),
        ...("path" in model ? { read: [model.path] } : { read: [model.folder], recipe: model.recipe }),
      }),
      options,
    );
    process.#work();
    await process.#ready.promise;
    process.#rest();
    return process;
  }

  /** Whether it takes requests. */
  get isAlive(): boolean {
    return this.#end === undefined;
  }

  /** Kernels with which it writes that are others than stand first, by what they are for. */
  get kernels(): Readonly<Record<string, string>> {
    return this.#kernels;
  }

  /** Requests that are being worked on or wait. */
  get load(): number {
    return this.#waiting.size;
  }

  /**
   * Writes, piece by piece. The last event says how it ended.
   *
   * @throws {InputError} the prompt is too long, or the model cannot be talked to
   * @throws {InferenceEndedError} the process ended before it was done
   */
  async *generate(request: InferenceRequest, signal?: AbortSignal): AsyncGenerator<InferenceEvent> {
    if (this.#end) throw whyEnded(this.#end);
    const id = this.#next++;
    let news = Promise.withResolvers<void>();
    const waiting: Waiting = { events: [], wake: () => news.resolve() };
    this.#waiting.set(id, waiting);
    this.#work();
    this.#send({ id, request });
    const cancel = () => this.#send({ cancel: id });
    if (signal?.aborted) cancel();
    signal?.addEventListener("abort", cancel);
    let ended = false;
    try {
      for (;;) {
        while (waiting.events.length > 0) {
          const event = waiting.events.shift()!;
          ended = event.type === "end";
          yield event;
          if (ended) return;
        }
        if (waiting.error) throw waiting.error;
        news = Promise.withResolvers();
        if (waiting.events.length === 0 && !waiting.error) await news.promise;
      }
    } finally {
      signal?.removeEventListener("abort", cancel);
      // Whoever read it has left before its end.
      if (!ended && !waiting.error) cancel();
      this.#waiting.delete(id);
      if (this.#waiting.size === 0) this.#rest();
    }
  }

  /** Ends it: at once when nothing is being written, else after `seconds`. */
  async close(seconds = 5): Promise<void> {
    this.#child.sendNoMore();
    const timer = setTimeout(this.#child.kill, seconds * 1000);
    await this.ended;
    clearTimeout(timer);
  }

  async #listen(): Promise<void> {
    for await (const message of this.#child.messages()) this.#take(message);
    this.#end = await this.#child.ended;
    clearTimeout(this.#idle);
    const error = whyEnded(this.#end);
    this.#ready.reject(error);
    for (const waiting of this.#waiting.values()) {
      waiting.error ??= error;
      waiting.wake();
    }
  }

  #take(message: InferenceMessage): void {
    if (message.type === "ready") {
      this.#kernels = message.kernels;
      this.#ready.resolve();
    }
    if (isTold(message)) this.#ready.reject(errorOf(message));
    if (message.type !== "event" && message.type !== "failed") return;
    const waiting = this.#waiting.get(message.id);
    if (!waiting) return;
    if (message.type === "failed") waiting.error = errorOf(message.error);
    else waiting.events.push(message.event);
    waiting.wake();
  }

  #send(order: InferenceOrder): void {
    this.#child.send(order);
  }

  /** It has something to do, and should be heard of. */
  #work(): void {
    clearTimeout(this.#idle);
    this.#child.expect(this.#options.watchdogSeconds ?? 120);
  }

  /** Ends the process unless it is asked for something in time. */
  #rest(): void {
    clearTimeout(this.#idle);
    this.#child.expect(undefined);
    if (this.#end) return;
    this.#idle = setTimeout(() => void this.close(), (this.#options.idleSeconds ?? 60) * 1000);
  }
}

function whyEnded(end: ChildEnd): InferenceEndedError {
  return new InferenceEndedError(
    end.success ? "the process that writes has ended" : `the process that writes ${howItEnded(end)}`,
    { hint: "Ask again: another one is started." },
  );
}
