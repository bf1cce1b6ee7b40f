/**
 * The parent's end of a child process, whatever its work: an order goes in, messages come out, and it is known why it ended. What
 * differs between kinds of children is their order, their messages and their permissions.
 *
 * @module
 */
import { DeviceError, InputError, LimbeckError } from "../../base/errors.ts";
import { RecipeError } from "../../distill/recipe/parse.ts";
import { type ChildCommand, type ChildNeeds, prepareChild } from "./command.ts";
import { encodeLine, readLines, readMessage } from "./lines.ts";
import type { FirstLine } from "./inside/port.ts";
import type { ToldError } from "./told_error.ts";

/** How a child is run. */
export interface ChildOptions<M> {
  readonly command: ChildCommand;
  /** Its working folder; this process's own by default. */
  readonly folder?: string;
  /** Whether the folder goes when it ends. */
  readonly isTemporary?: boolean;
  /** What it is to do. */
  readonly order: unknown;
  /** What a line of its stdout says; undefined where it is no message. Any object with a type by default. */
  readonly parse?: (line: string) => M | undefined;
  /** Takes what it prints. */
  readonly console?: { write(text: string | Uint8Array): void };
  /** Seconds between SIGTERM and SIGKILL when it is ended; SIGKILL at once by default. */
  readonly graceSeconds?: number;
  /** Seconds that it may be silent when this process is gone (default 0). */
  readonly orphanSeconds?: number;
  /** In a session of its own a terminal's Ctrl-C does not reach it. */
  readonly detached?: boolean;
  /** Ends it. */
  readonly signal?: AbortSignal | undefined;
}

/** How a child ended. */
export interface ChildEnd extends Deno.CommandStatus {
  /** Seconds of silence after which it was ended; undefined where it was not. */
  readonly silentSeconds: number | undefined;
  /** Whether the JavaScript engine gave up for want of memory. */
  readonly outOfMemory: boolean;
  /** The end of what it said on stderr: its last error, where there is one. */
  readonly lastWords: string;
}

/** A child process. `M` is what it says. */
export class Child<M extends { type: string } = { type: string }> {
  /** Fulfilled when it has ended. */
  readonly ended: Promise<ChildEnd>;
  readonly #process: Deno.ChildProcess;
  readonly #options: ChildOptions<M>;
  readonly #orders: WritableStreamDefaultWriter<Uint8Array>;
  #patience: number | undefined;
  #silentSeconds: number | undefined;
  #over = false;
  /** Whether a message is being dealt with: that is no silence of the child's. */
  #heard = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #lastResort: ReturnType<typeof setTimeout> | undefined;

  constructor(options: ChildOptions<M>) {
    options.signal?.throwIfAborted();
    this.#options = options;
    const { command, folder, detached = false, order, orphanSeconds = 0 } = options;
    this.#process = new Deno.Command(Deno.execPath(), {
      ...command,
      ...(folder === undefined ? {} : { cwd: folder }),
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
      detached: detached && Deno.build.os !== "windows",
    }).spawn();
    this.#orders = this.#process.stdin.getWriter();
    options.signal?.addEventListener("abort", this.kill);
    this.ended = this.#end();
    this.send({ parent: Deno.pid, orphanSeconds, order } satisfies FirstLine);
  }

  /** What it says, until it says no more. Whoever leaves before that hears nothing of the rest. */
  async *messages(): AsyncGenerator<M> {
    const { parse = readMessage<M>, console } = this.#options;
    try {
      for await (const line of readLines(this.#process.stdout)) {
        this.#hear(true);
        const message = parse(line);
        if (message) yield message;
        else console?.write(line + "\n");
        this.#hear(false);
      }
    } finally {
      this.#hear(false);
    }
  }

  /**
   * What it answers, if one answer is all that it is to give.
   *
   * @param explain makes an error of an end without an answer
   * @throws the error that it told
   */
  async answer(explain: (end: ChildEnd) => Error): Promise<unknown> {
    this.sendNoMore();
    let last: M | undefined;
    for await (const message of this.messages()) last = message;
    const end = await this.ended;
    if (last && isTold(last)) throw errorOf(last);
    if (last && "value" in last) return last.value;
    this.#options.signal?.throwIfAborted();
    throw explain(end);
  }

  /** Gives a further order. One that has ended takes none; that it has is noticed elsewhere. */
  send(order: unknown): void {
    this.#orders.write(encodeLine(order)).catch(() => {});
  }

  /** Gives no more orders. */
  sendNoMore(): void {
    this.#orders.close().catch(() => {});
  }

  /** Ends it when nothing is heard of it for so long from now on, and after each message; never where undefined. */
  expect(seconds: number | undefined): void {
    this.#patience = seconds;
    this.#hear(this.#heard);
  }

  /** Ends it with SIGTERM, and with SIGKILL where it does not listen. */
  end(): void {
    const { graceSeconds = 0 } = this.#options;
    if (graceSeconds === 0) return this.kill();
    this.#signal("SIGTERM");
    this.#lastResort ??= setTimeout(this.kill, graceSeconds * 1000);
  }

  /** Ends it at once. */
  readonly kill = (): void => this.#signal("SIGKILL");

  #hear(heard: boolean): void {
    this.#heard = heard;
    clearTimeout(this.#timer);
    const patience = this.#patience;
    if (heard || patience === undefined || this.#over || this.#silentSeconds !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#silentSeconds = patience;
      this.end();
    }, patience * 1000);
  }

  async #end(): Promise<ChildEnd> {
    const words = listen(this.#process.stderr, this.#options.console);
    const status = await this.#process.status;
    this.#over = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#lastResort);
    this.#options.signal?.removeEventListener("abort", this.kill);
    this.sendNoMore();
    const { folder, isTemporary } = this.#options;
    if (folder && isTemporary) await Deno.remove(folder, { recursive: true }).catch(() => {});
    return { ...status, silentSeconds: this.#silentSeconds, ...await words };
  }

  #signal(signal: Deno.Signal): void {
    try {
      this.#process.kill(signal);
    } catch {
      // It has just ended by itself.
    }
  }
}

/** What starts a child in a temporary folder. */
export interface LoneChild<M>
  extends Omit<ChildNeeds, "folder">, Omit<ChildOptions<M>, "command" | "folder" | "isTemporary"> {}

/**
 * Starts a child in a temporary folder, which is gone when it has ended.
 *
 * @throws what {@linkcode prepareChild} throws
 */
export async function startAlone<M extends { type: string }>(options: LoneChild<M>): Promise<Child<M>> {
  const folder = await Deno.makeTempDir({ prefix: "limbeck-child-" });
  try {
    const command = await prepareChild({ ...options, folder });
    return new Child<M>({ ...options, command, folder, isTemporary: true });
  } catch (error) {
    await Deno.remove(folder, { recursive: true }).catch(() => {});
    throw error;
  }
}

/** The same; it is ended when `use` is done. */
export async function withChild<M extends { type: string }, T>(
  options: LoneChild<M>,
  use: (child: Child<M>) => Promise<T>,
): Promise<T> {
  const child = await startAlone(options);
  try {
    return await use(child);
  } finally {
    child.kill();
    await child.ended;
  }
}

/** Why a child ended that did not tell an error, as the end of a sentence that it begins. */
export function howItEnded({ silentSeconds, outOfMemory, signal, code, lastWords }: ChildEnd): string {
  if (silentSeconds !== undefined) return `gave no sign of life for ${silentSeconds} s and was ended`;
  if (outOfMemory) return "needed more memory than it may have";
  const how = signal ? `by ${signal}` : `with exit code ${code}`;
  return lastWords ? `ended ${how}; its last words:\n${lastWords}` : `ended ${how} without saying why`;
}

/** Whether a message is a child's last one, of an error. */
export function isTold(message: { type: string }): message is { type: "error" } & ToldError {
  return message.type === "error" && "message" in message && "exitCode" in message;
}

/** The error that a child told, as what it was. */
export function errorOf({ message, hint, where, exitCode, problems }: ToldError): LimbeckError {
  if (problems) return new RecipeError("recipe", problems);
  const options = hint === undefined ? {} : { hint };
  if (exitCode === 4) return new DeviceError(message, options);
  if (exitCode !== 3) return new LimbeckError(message, options);
  const own = where && message.startsWith(`${where}: `) ? message.slice(where.length + 2) : message;
  return new InputError(own, { ...options, ...(where === undefined ? {} : { where }) });
}

const MOST_WORDS = 12;

/** Takes what a child prints on stderr, and keeps what tells why it ended. */
async function listen(
  stderr: ReadableStream<Uint8Array>,
  console: ChildOptions<unknown>["console"],
): Promise<Pick<ChildEnd, "lastWords" | "outOfMemory">> {
  let lines: string[] = [];
  let outOfMemory = false;
  const passing = new TransformStream<Uint8Array, Uint8Array>({
    transform(chunk, controller) {
      console?.write(chunk);
      controller.enqueue(chunk);
    },
  });
  try {
    for await (const line of readLines(stderr.pipeThrough(passing))) {
      if (/^# Fatal (JavaScript|process) out of memory/.test(line)) outOfMemory = true;
      // So begins what Deno says of an error that nobody caught; what came before tells less.
      if (line.startsWith("error: ")) lines = [];
      lines.push(line);
      if (lines.length > MOST_WORDS) lines.splice(lines[0]!.startsWith("error: ") ? MOST_WORDS : 0, 1);
    }
  } catch {
    // The process is gone.
  }
  return { lastWords: lines.join("\n").trim(), outOfMemory };
}
