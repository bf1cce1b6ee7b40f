/**
 * Writes text with a model in a process of its own, which may read that model and nothing else, ends by itself when it is not used, and
 * is ended when it hangs.
 *
 * @module
 */
import { LimbeckError } from "../../base/errors.ts";
import { prepareChild } from "./command.ts";
import type {
  InferenceEvent,
  InferenceMessage,
  InferenceModel,
  InferenceOrder,
  InferenceRequest,
} from "./inference_protocol.ts";
import { readLines } from "./training.ts";
import { errorOf } from "./told_error.ts";

export type { InferenceEvent, InferenceModel, InferenceRequest } from "./inference_protocol.ts";

/** How the process is run. */
export interface InferenceOptions {
  readonly model: InferenceModel;
  /** Plugin modules of a run: absolute paths, and packages with their version. */
  readonly plugins?: readonly string[];
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
  readonly #child: Deno.ChildProcess;
  readonly #orders: WritableStreamDefaultWriter<Uint8Array>;
  readonly #waiting = new Map<number, Waiting>();
  readonly #options: InferenceOptions;
  readonly #folder: string;
  readonly #ready = Promise.withResolvers<void>();
  #next = 1;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #over = false;
  #hung = false;

  private constructor(child: Deno.ChildProcess, folder: string, options: InferenceOptions) {
    this.#child = child;
    this.#folder = folder;
    this.#options = options;
    this.#orders = child.stdin.getWriter();
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
    const { model, plugins = [] } = options;
    const folder = await Deno.makeTempDir({ prefix: "limbeck-inference-" });
    let process: InferenceProcess;
    try {
      const entry = new URL("./inference_entry.ts", import.meta.url).href;
      const command = await prepareChild({
        folder,
        plugins,
        entry,
        heapMegabytes: 2048,
        ...("path" in model ? { read: [model.path] } : { read: [model.folder], recipe: model.recipe }),
      });
      const child = new Deno.Command(Deno.execPath(), {
        ...command,
        cwd: folder,
        stdin: "piped",
        stdout: "piped",
        stderr: "null",
      }).spawn();
      process = new InferenceProcess(child, folder, options);
    } catch (error) {
      await Deno.remove(folder, { recursive: true }).catch(() => {});
      throw error;
    }
    process.#expectLife();
    process.#send({ start: model });
    await process.#ready.promise;
    process.#rest();
    return process;
  }

  /** Whether it takes requests. */
  get isAlive(): boolean {
    return !this.#over;
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
    if (this.#over) throw this.#whyEnded();
    const id = this.#next++;
    let news = Promise.withResolvers<void>();
    const waiting: Waiting = { events: [], wake: () => news.resolve() };
    this.#waiting.set(id, waiting);
    clearTimeout(this.#timer);
    this.#expectLife();
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
    await this.#orders.close().catch(() => {});
    const timer = setTimeout(() => this.#kill(), seconds * 1000);
    await this.ended;
    clearTimeout(timer);
  }

  async #listen(): Promise<void> {
    try {
      for await (const line of readLines(this.#child.stdout)) {
        let message: InferenceMessage;
        try {
          message = JSON.parse(line);
        } catch {
          continue;
        }
        if (this.#waiting.size > 0) this.#expectLife();
        this.#take(message);
      }
    } finally {
      await this.#child.status;
      this.#over = true;
      clearTimeout(this.#timer);
      this.#ready.reject(this.#whyEnded());
      for (const waiting of this.#waiting.values()) {
        waiting.error ??= this.#whyEnded();
        waiting.wake();
      }
      await this.#orders.close().catch(() => {});
      await Deno.remove(this.#folder, { recursive: true }).catch(() => {});
    }
  }

  #take(message: InferenceMessage): void {
    if ("ready" in message) return this.#ready.resolve();
    if ("alive" in message) return;
    if ("error" in message && message.id === null) return this.#ready.reject(errorOf(message.error));
    const waiting = this.#waiting.get(message.id!);
    if (!waiting) return;
    if ("error" in message) waiting.error = errorOf(message.error);
    else waiting.events.push(message.event);
    waiting.wake();
  }

  #send(order: InferenceOrder): void {
    // A process that has ended takes no orders; its end is noticed elsewhere.
    this.#orders.write(new TextEncoder().encode(JSON.stringify(order) + "\n")).catch(() => {});
  }

  /** Ends the process unless it says something in time. */
  #expectLife(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#hung = true;
      this.#kill();
    }, (this.#options.watchdogSeconds ?? 120) * 1000);
  }

  /** Ends the process unless it is asked for something in time. */
  #rest(): void {
    clearTimeout(this.#timer);
    if (this.#over) return;
    this.#timer = setTimeout(() => void this.close(), (this.#options.idleSeconds ?? 60) * 1000);
  }

  #kill(): void {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has just ended by itself.
    }
  }

  #whyEnded(): InferenceEndedError {
    return new InferenceEndedError(
      this.#hung
        ? `the process that writes gave no sign of life for ${
          this.#options.watchdogSeconds ?? 120
        } s and was ended`
        : "the process that writes has ended",
      { hint: "Ask again: another one is started." },
    );
  }
}
