/**
 * The worker of a tab: does what the page asks, one run at a time. It is the entry of the bundle for a browser.
 *
 * @module
 */
import "./without_eval.ts";
import { LimbeckError } from "../base/errors.ts";
import type { RunControl } from "../distill/run/events.ts";
import { type Gpu, openGpu } from "../gpu/device.ts";
import { deviceIdentity } from "../tune/tuned.ts";
import { failureOf } from "./failure.ts";
import { leftFiles, zipped } from "./left_files.ts";
import type { Reply, Request } from "./messages.ts";
import { keptRuns, removeRun, resumeRun, startRun, type TabHost } from "./runs.ts";
import { keptFiles } from "./system.ts";

/** What a worker has and Deno's types of a window have not. */
declare const self: {
  postMessage(message: Reply): void;
  addEventListener(type: "message", listener: (event: MessageEvent) => void): void;
};

let asked: RunControl = "run";
let running: string | undefined;
let opened: Gpu | undefined;

/** The device, with the kernels that earlier runs compiled; one that failed is not used again. */
async function device(): Promise<Gpu> {
  try {
    opened?.check();
  } catch {
    opened?.destroy();
    opened = undefined;
  }
  return opened ??= await openGpu();
}

async function work(id: string, run: (host: TabHost) => Promise<unknown>): Promise<unknown> {
  if (running !== undefined) throw new LimbeckError(`${running} is running in this tab; stop it first`);
  [running, asked] = [id, "run"];
  try {
    return await run({
      gpu: await device(),
      emit: (event) => self.postMessage({ type: "event", id, event }),
      control: () => asked,
    });
  } finally {
    running = undefined;
  }
}

async function answer(request: Request): Promise<unknown> {
  switch (request.type) {
    case "device":
      return deviceIdentity(await device());
    case "runs":
      return (await keptRuns()).filter(({ id }) => id !== running);
    case "start":
      return await work(request.order.id, (host) => startRun(request.order, host));
    case "resume":
      return await work(request.id, (host) => resumeRun(request.id, request.picked, host));
    case "stop":
      asked = "stop";
      return undefined;
    case "events":
      return await (await keptFiles()).events(request.id);
    case "files":
      return await leftFiles(request.id);
    case "zip":
      return await zipped(await leftFiles(request.id));
    case "remove":
      return await removeRun(request.id);
  }
}

self.addEventListener("message", async ({ data }) => {
  const { to, request } = data as { to: number; request: Request };
  try {
    self.postMessage({ type: "answer", to, value: await answer(request) });
  } catch (error) {
    // What is a mistake of this program, with where it was made; the rest is told on the page.
    if (!(error instanceof LimbeckError)) console.error(error);
    self.postMessage({ type: "answer", to, failure: failureOf(error) });
  }
});
