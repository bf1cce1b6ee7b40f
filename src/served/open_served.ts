/**
 * A model behind a server with all that asking it takes.
 *
 * @module
 */
import { Budget } from "./budget.ts";
import type { Clock } from "./pace.ts";
import { type Patience, ServerRequests } from "./requests.ts";
import { ServedModel } from "./served_model.ts";
import { type Environment, keyOf, type ServerSettings } from "./server.ts";

/** How it is asked. */
export interface ServedOptions {
  /** File of what was used, over which the settings' budget holds; for this process alone when absent. */
  readonly usedFile?: string;
  readonly patience?: Patience | undefined;
  readonly clock?: Clock;
  /** Where the key is looked up; this process's environment by default. */
  readonly environment?: Environment | undefined;
  /** Ends what is under way. */
  readonly signal?: AbortSignal | undefined;
  /** Told of what is tried again. */
  readonly onRetry?: (message: string) => void;
}

/** An open one. */
export interface OpenServed extends Disposable {
  readonly model: ServedModel;
  readonly requests: ServerRequests;
  readonly budget: Budget;
}

/**
 * Makes a server ready to be asked; it is not asked yet.
 *
 * @throws {ServedRefusal} its key is not in the environment
 *
 * @example
 * ```ts ignore
 * using served = openServed({ url, model, concurrency: 4, timeoutSeconds: 300 });
 * const { text } = await served.model.complete([{ role: "user", content: "Why?" }], { maxTokens: 200 });
 * ```
 */
export function openServed(settings: ServerSettings, options: ServedOptions = {}): OpenServed {
  const { usedFile, environment, patience, clock, signal, onRetry } = options;
  const key = keyOf(settings, environment);
  const budget = Budget.open(settings.budget ?? {}, usedFile);
  const requests = new ServerRequests({
    ...{ settings, key, budget },
    ...(patience ? { patience } : {}),
    ...(clock ? { clock } : {}),
    ...(signal ? { signal } : {}),
    ...(onRetry ? { onRetry } : {}),
  });
  return {
    ...{ requests, budget, model: new ServedModel(settings, requests) },
    [Symbol.dispose]: () => budget.close(),
  };
}
