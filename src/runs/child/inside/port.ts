/**
 * The child's end of a child process: one order comes in, further ones may follow, messages go out, and an error of any kind is the last
 * of them. It imports no package, since not every child has those of the project.
 *
 * @module
 */
import { LimbeckError } from "../../../base/errors.ts";
import { encodeLine, readLines } from "../lines.ts";
import { tellError } from "../told_error.ts";

/** The first line that a child is sent. */
export interface FirstLine {
  /** Id of the process that started it. */
  readonly parent: number;
  /** Seconds that it may be silent when that process is gone. */
  readonly orphanSeconds: number;
  readonly order: unknown;
}

/** What a child talks through. */
export interface Port {
  /** Orders after the first; their end means that no more are to come, or that nobody is left to give them. */
  readonly orders: AsyncIterable<unknown>;
  /** Says something, at once, so that nothing is lost however the process ends. Returns whether anybody could hear it. */
  say<M extends { readonly type: string }>(message: M): boolean;
}

// What others wrote may replace these.
const exit: (code: number) => never = Deno.exit.bind(Deno);
const write = Deno.stdout.writeSync.bind(Deno.stdout);

/** How much was said, for the thread that looks after this one. */
const said = new Int32Array(new SharedArrayBuffer(4));

/**
 * Does the work that is ordered as all that this process does, and ends it: exit code 0, or that of the error.
 *
 * @param tell says what went wrong and returns the exit code
 */
export async function serve<Order>(
  work: (order: Order, port: Port) => Promise<void>,
  tell: (error: unknown, port: Port) => number = sayError,
): Promise<never> {
  // Stdout carries messages only.
  console.log = console.info = console.debug = console.error;
  const lines = readLines(Deno.stdin.readable, Infinity);
  const port: Port = { say, orders: parsed(lines) };
  const fail = (error: unknown) => exit(tell(error, port));
  globalThis.addEventListener("error", (event) => fail(event.error));
  globalThis.addEventListener("unhandledrejection", (event) => fail(event.reason));
  try {
    const { value } = await lines.next();
    if (value === undefined) throw new LimbeckError("the process got no order on stdin");
    const { parent, orphanSeconds, order }: FirstLine = JSON.parse(value);
    endWithParent(parent, orphanSeconds);
    refuseWorkers();
    await work(order as Order, port);
  } catch (error) {
    fail(error);
  }
  // GPU objects may keep the process alive.
  return exit(0);
}

function say(message: unknown): boolean {
  said[0]!++;
  const bytes = encodeLine(message);
  try {
    for (let done = 0; done < bytes.length;) done += write(bytes.subarray(done));
    return true;
  } catch {
    return false;
  }
}

function sayError(error: unknown, port: Port): number {
  const told = tellError(error);
  port.say({ type: "error", ...told });
  return told.exitCode;
}

async function* parsed(lines: AsyncIterable<string>): AsyncGenerator<unknown> {
  for await (const line of lines) yield JSON.parse(line);
}

/**
 * Ends this process when the one that started it is gone and it is silent. The end of stdin says so too, but nobody hears it in a loop
 * that never ends: so a thread of its own looks who the parent is. On Windows that never changes, and only the end of stdin is left.
 */
function endWithParent(parent: number, orphanSeconds: number): void {
  const source = `onmessage = ({ data }) => {
    let [said, since] = [-1, 0];
    setInterval(() => {
      if (Deno.ppid === ${Number(parent)}) return;
      const now = performance.now();
      if (said !== data[0]) [said, since] = [data[0], now];
      else if (now - since >= ${1000 * Number(orphanSeconds)}) Deno.kill(Deno.pid, "SIGKILL");
    }, 500);
  };`;
  new Worker(`data:text/javascript,${encodeURIComponent(source)}`, { type: "module" }).postMessage(said);
}

/** A worker that fails ends the whole process, without an event that could be told. */
function refuseWorkers(): void {
  globalThis.Worker = class {
    constructor() {
      throw new Deno.errors.NotCapable("Workers may not be started here");
    }
  } as unknown as typeof Worker;
}
