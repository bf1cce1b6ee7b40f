/**
 * Models of the hub on the command line: wherever a path of a model may stand, `hf:ORG/NAME` may.
 *
 * @module
 */
import { bytes } from "../base/units.ts";
import { fetchModel, type FetchOptions, type FetchProgress } from "../hub/fetch_model.ts";
import { isHubName, parseHubName } from "../hub/hub_name.ts";
import { hubSettings } from "../hub/hub_settings.ts";
import { restoreModels } from "../runs/task/hub_models.ts";
import type { RunRecipe } from "../runs/task/run_recipe.ts";
import type { Flag, Invocation } from "./command.ts";
import type { Output } from "./terminal/output.ts";
import { WorkProgress } from "./terminal/work_progress.ts";

/** Flags of verbs that take models. */
export const HUB_FLAGS: Readonly<Record<string, Flag>> = {
  offline: { help: "Fetch nothing: of models on the hub (hf:ORG/NAME), use what the cache has" },
};

/** Milliseconds between two notes where no line can be redrawn. */
const NOTE_INTERVAL_MS = 10_000;

/** How models are fetched for a command, and shown to be. */
function fetchOptions({ flags, out }: Pick<Invocation, "flags" | "out">): FetchOptions & Disposable {
  const settings = hubSettings();
  const shown = new FetchLine(out);
  return {
    settings: { ...settings, offline: settings.offline || flags.on("offline") },
    onProgress: (progress) => shown.show(progress),
    onNote: (message) => {
      shown.end();
      out.note(message);
    },
    [Symbol.dispose]: () => shown.end(),
  };
}

/**
 * The paths of models that were named by their paths, or as some of the hub, which are fetched first.
 *
 * @throws as `fetchModel`
 */
export async function localModels(
  names: readonly string[],
  invocation: Pick<Invocation, "flags" | "out">,
): Promise<string[]> {
  if (!names.some(isHubName)) return [...names];
  using options = fetchOptions(invocation);
  const paths: string[] = [];
  for (const name of names) {
    paths.push(isHubName(name) ? await fetchModel(parseHubName(name), options) : name);
  }
  return paths;
}

/** See {@linkcode localModels}. */
export async function localModel(
  name: string,
  invocation: Pick<Invocation, "flags" | "out">,
): Promise<string> {
  return (await localModels([name], invocation))[0]!;
}

/**
 * Fetches the models of the hub that a recipe names by their places in the cache and that are no longer there.
 *
 * @throws as `fetchModel`
 */
export async function restoredModels(
  recipe: RunRecipe,
  invocation: Pick<Invocation, "flags" | "out">,
): Promise<void> {
  using options = fetchOptions(invocation);
  await restoreModels(recipe, options);
}

/** How far a fetch is: a bar on a terminal, else a note now and then. What a command prints stays free of both. */
class FetchLine {
  readonly #out: Output;
  #progress: WorkProgress | undefined;
  #name: string | undefined;
  #noted = 0;

  constructor(out: Output) {
    this.#out = out;
  }

  show({ name, file, bytes: there, bytesTotal }: FetchProgress): void {
    if (name !== this.#name) {
      this.end();
      this.#name = name;
      this.#progress = new WorkProgress(this.#out, `Fetching ${name}`);
      this.#noted = performance.now();
      this.#out.note(`Fetching ${name}: ${bytes(bytesTotal)}`);
    }
    const text = `${bytes(there)} of ${bytes(bytesTotal)}`;
    if (this.#out.terminal.interactive) return this.#progress!.update(there, bytesTotal, `${text}  ${file}`);
    if (performance.now() - this.#noted < NOTE_INTERVAL_MS) return;
    this.#noted = performance.now();
    this.#out.note(`Fetching ${name}: ${text}`);
  }

  end(): void {
    this.#progress?.end();
    this.#progress = this.#name = undefined;
  }
}
