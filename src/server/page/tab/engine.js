/** The worker that trains: questions to it and its answers, and what its run says. */

import { failure } from "../api.js";

/** What the worker refuses, or what went wrong in it. */
export class EngineError extends Error {
  constructor({ message, hint, code }) {
    super(message);
    this.hint = hint;
    this.code = code;
  }
}

const WORKER = new URL("../../tab/worker.js", import.meta.url);

/** The worker of this tab. */
export class Engine {
  #worker = new Worker(WORKER, { type: "module" });
  #waiting = new Map();
  #count = 0;
  /** Told what a run says. */
  onEvent = () => {};

  constructor() {
    this.#worker.addEventListener("message", ({ data }) => {
      if (data.type === "event") return this.onEvent(data.event, data.id);
      const { done, fail } = this.#waiting.get(data.to);
      this.#waiting.delete(data.to);
      if (data.failure) fail(new EngineError(data.failure));
      else done(data.value);
    });
    this.#worker.addEventListener("error", async ({ message }) => {
      const error = new EngineError({
        message: message ? `the worker broke down: ${message}` : await whyNotLoaded(),
        hint: "Reload the page. What a run had saved can be resumed.",
      });
      for (const { fail } of this.#waiting.values()) fail(error);
      this.#waiting.clear();
    });
  }

  /** Asks for something; see `Request` in src/tab/messages.ts. */
  ask(request) {
    return new Promise((done, fail) => {
      const to = ++this.#count;
      this.#waiting.set(to, { done, fail });
      this.#worker.postMessage({ to, request });
    });
  }
}

/** A browser does not say why a worker could not be loaded; whoever sends it may. */
async function whyNotLoaded() {
  try {
    const response = await fetch(WORKER);
    if (!response.ok) return (await failure(response)).message;
  } catch {
    // Told below.
  }
  return "the worker cannot be loaded";
}
