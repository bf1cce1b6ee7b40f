/**
 * `limbeck distill --remote`
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { basename, dirname, resolve } from "@std/path";
import { withSetNames } from "../../distill/recipe/data_sets.ts";
import { readWrittenRecipe } from "../../distill/recipe/file.ts";
import { mapRecipePaths, recipePaths } from "../../distill/recipe/paths.ts";
import { UsageError } from "../../base/errors.ts";
import type { RemoteRuns } from "../../runs/store/remote_runs.ts";
import type { RunState } from "../../distill/run/events.ts";
import type { Invocation } from "../command.ts";
import { Progress } from "../terminal/progress.ts";
import { RunError } from "../terminal/run_error.ts";
import { handleSignals } from "../terminal/watch_run.ts";
import { isFile } from "../../formats/files.ts";

/** The example's files under the names that services know them by. */
const EXAMPLE = {
  teacher: { model: "stories15M-q8_0.gguf" },
  data: { train: "stories-train", heldOut: "stories-heldout" },
};

/**
 * Sends a recipe to a service and shows what the run says. Datasets that are files here are uploaded first.
 *
 * @param examplePath the recipe where none is named
 * @returns the exit code
 */
export async function distillRemote(
  invocation: Invocation,
  remote: RemoteRuns,
  examplePath: () => string,
): Promise<number> {
  const { args, flags, out } = invocation;
  for (const name of ["output", "data", "plugin", "config", "provider"]) {
    if (flags.text(name) === undefined && flags.list(name).length === 0) continue;
    throw new UsageError(`--${name} is of runs on this machine; the service has its own`);
  }
  const path = args[0] ?? examplePath();
  const written = await readWrittenRecipe(path, flags.list("set")) as Record<string, Record<string, unknown>>;
  const recipe = args[0] === undefined
    ? {
      ...written,
      teacher: { ...written.teacher, ...EXAMPLE.teacher },
      data: { ...written.data, ...EXAMPLE.data },
    }
    : { ...written, data: await uploadData(written.data ?? {}, dirname(resolve(path)), remote, out) };
  const { id } = await remote.submit(recipe);
  out.line(`Run ${id}`);
  const progress = new Progress(out);
  const stop = new AbortController();
  using _signals = handleSignals({ first: () => stop.abort(), second: () => Deno.exit(130) });
  try {
    for await (const events of remote.events(id, { after: 0, follow: true, signal: stop.signal })) {
      for (const event of events) progress.show(event);
    }
  } finally {
    progress.end();
  }
  const summary = await remote.find(id);
  const { state, result, error } = summary;
  out.value({
    type: "outcome",
    state,
    exitCode: exitCodeOf(state),
    folder: summary.folder,
    result: result ?? null,
  });
  if (error && state === "failed") throw new RunError(error, summary.folder);
  if (stop.signal.aborted) {
    out.line(`The run goes on. \`limbeck logs ${id} -f --remote URL\` shows it, \`limbeck cancel\` ends it.`);
  } else if (state === "succeeded") out.line(`Done. Its files: ${summary.folder}/artifacts`);
  else out.line(`The run is ${state}.`);
  return exitCodeOf(state);
}

async function uploadData(
  data: Record<string, unknown>,
  folder: string,
  remote: RemoteRuns,
  out: Invocation["out"],
): Promise<Record<string, unknown>> {
  // The service knows a file by an id, which says less of a set than its file's name.
  let named = { data: withSetNames(data) };
  const uploaded = new Map<string, string>();
  for (const { of, path: value } of recipePaths(named)) {
    if (of !== "dataset" || uploaded.has(value)) continue;
    const path = resolve(folder, value);
    if (!await isFile(path)) continue;
    out.note(`Uploading ${value}`);
    uploaded.set(value, await remote.upload(basename(path), new Blob([await Deno.readFile(path)])));
  }
  named = mapRecipePaths(named, ({ path }) => uploaded.get(path) ?? path);
  return named.data;
}

function exitCodeOf(state: RunState): number {
  return state === "succeeded" ? 0 : state === "failed" ? 1 : 130;
}
