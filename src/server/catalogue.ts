/**
 * What a request may name: models and datasets that the operator allows, what was uploaded, and what finished runs made. A request
 * never names a path; each name here stands for one.
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { fromFileUrl, join, SEPARATOR } from "@std/path";
import { InputError } from "../base/errors.ts";
import { exists, unreadable } from "../formats/files.ts";
import { withoutFolders } from "../runs/report/path_names.ts";
import type { RunStore } from "../runs/store/store.ts";
import { isTask } from "../runs/task/run_recipe.ts";
import { parseRunModel } from "./run_model.ts";
import { PURPOSES } from "./openai/upload_content.ts";
import type { Hide } from "./run_view.ts";
import type { Uploads } from "./uploads.ts";
import { isDatasetName } from "../text/read/format.ts";

/** Something a request may name. */
export interface NamedFile {
  readonly name: string;
  /** Absolute, without links. */
  readonly path: string;
  /** ISO 8601, UTC. */
  readonly createdAt: string;
  /** Who answers for it: the operator, the project, or whoever uploaded or made it. */
  readonly source: "operator" | "example" | "upload" | "run";
}

/** Where to look. */
export interface CatalogueOptions {
  /** Folders whose model folders and GGUF files may be named. */
  readonly models?: readonly string[];
  /** Folders whose datasets may be named. */
  readonly datasets?: readonly string[];
  /** Whether the example that comes with Limbeck may be named (default true). */
  readonly example?: boolean;
}

const EXAMPLE = new URL("../../examples/stories/", import.meta.url);
const EXAMPLE_MODEL = "stories15M-q8_0.gguf";
const EXAMPLE_DATA: Readonly<Record<string, string>> = {
  "stories-train": "train.jsonl",
  "stories-heldout": "heldout.jsonl",
};

/** Resolves names. Folders are read anew each time, so what is put into them can be named at once. */
export class Catalogue {
  readonly #models: readonly string[];
  readonly #datasets: readonly string[];
  readonly #example: string | undefined;
  readonly #store: RunStore;
  readonly #uploads: Uploads;
  /**
   * A text without paths of this machine: names stand for what has one, and the rest is shortened to the last part. What has a name lies
   * in one of few folders under that name, so no folder is read, however much is in it.
   */
  readonly hide: Hide;

  private constructor(
    folders: { models: string[]; datasets: string[]; example?: string },
    store: RunStore,
    uploads: Uploads,
  ) {
    this.#models = folders.models;
    this.#datasets = folders.datasets;
    this.#example = folders.example;
    this.#store = store;
    this.#uploads = uploads;
    this.hide = hider(folders, store.folder, uploads);
  }

  /** @throws {InputError} a folder that cannot be read */
  static async open(options: CatalogueOptions, store: RunStore, uploads: Uploads): Promise<Catalogue> {
    const example = options.example ?? true ? EXAMPLE : undefined;
    return new Catalogue(
      {
        models: await realFolders(options.models ?? []),
        datasets: await realFolders(options.datasets ?? []),
        // Read over HTTPS, or installed without its examples, the project has no such files.
        ...(example?.protocol === "file:" && await exists(fromFileUrl(new URL(EXAMPLE_MODEL, example)))
          ? { example: fromFileUrl(example) }
          : {}),
      },
      store,
      uploads,
    );
  }

  /** Models that may be named, those of runs aside. */
  async models(): Promise<NamedFile[]> {
    const found: NamedFile[] = [];
    if (this.#example) {
      const path = join(this.#example, EXAMPLE_MODEL);
      found.push({ ...await fileInfo(path), name: EXAMPLE_MODEL, path, source: "example" });
    }
    for (const folder of this.#models) {
      for await (const { name } of Deno.readDir(folder)) {
        const path = await pathWithin(folder, name);
        const isModel = path !== undefined &&
          (name.endsWith(".gguf") || await exists(join(path, "config.json")));
        if (isModel && await staysWithin(folder, path)) {
          found.push({ ...await fileInfo(path), name, path, source: "operator" });
        }
      }
    }
    return firstOfEachName(found);
  }

  /** Datasets that may be named. */
  async datasets(): Promise<NamedFile[]> {
    const uploads = (await this.#uploads.list()).filter(({ purpose }) => purpose !== PURPOSES["a shape file"])
      .map(({ id, path, createdAt }): NamedFile => ({ name: id, path, createdAt, source: "upload" }));
    return firstOfEachName([...await this.#standing(), ...uploads]);
  }

  /** Datasets that were not uploaded. */
  async #standing(): Promise<NamedFile[]> {
    const found: NamedFile[] = [];
    if (this.#example) {
      for (const [name, file] of Object.entries(EXAMPLE_DATA)) {
        const path = join(this.#example, file);
        found.push({ ...await fileInfo(path), name, path, source: "example" });
      }
    }
    for (const folder of this.#datasets) {
      for await (const { name, isFile } of Deno.readDir(folder)) {
        // A link could lead anywhere, also one that is put there later.
        const path = isFile && isDatasetName(name) ? await pathWithin(folder, name) : undefined;
        if (path) found.push({ ...await fileInfo(path), name, path, source: "operator" });
      }
    }
    return found;
  }

  /** Path of a model by its name. */
  async model(name: string): Promise<string | undefined> {
    const made = parseRunModel(name);
    // What it was after a step is never merged.
    if (made) return made.step === undefined ? await this.#modelOfRun(made.run) : undefined;
    return (await this.models()).find((model) => model.name === name)?.path;
  }

  /** Path of a dataset by its name. */
  async dataset(name: string): Promise<string | undefined> {
    // An upload is found by its id: there may be thousands.
    return (await this.#standing()).find((data) => data.name === name)?.path ??
      await this.#upload(name, "a dataset");
  }

  /** Path of a shape: one that was uploaded, or what a run which shrank a model left, by the name of the run, `run:ID`. */
  async shape(name: string): Promise<string | undefined> {
    const made = parseRunModel(name);
    if (!made) return await this.#upload(name, "a shape file");
    return made.step === undefined ? await this.#leftBy(made.run, "shape") : undefined;
  }

  async #upload(id: string, kind: keyof typeof PURPOSES): Promise<string | undefined> {
    const upload = await this.#uploads.get(id);
    return upload && (upload.purpose === PURPOSES["a shape file"]) === (kind === "a shape file")
      ? upload.path
      : undefined;
  }

  /** Folder of a run that trained several shapes, by its name, `run:ID`. */
  async run(name: string): Promise<string | undefined> {
    const made = parseRunModel(name);
    const run = made && made.step === undefined ? await this.#store.get(made.run) : undefined;
    if (!run || isTask(run.recipe) || !run.recipe.student.shapes) return undefined;
    return await Deno.realPath(run.folder);
  }

  /** Folder of the adapter that a run left, by its name, `run:ID`. */
  async adapter(name: string): Promise<string | undefined> {
    const made = parseRunModel(name);
    return made && made.step === undefined ? await this.#leftBy(made.run, "adapter") : undefined;
  }

  #modelOfRun(id: string): Promise<string | undefined> {
    return this.#leftBy(id, "merged");
  }

  async #leftBy(id: string, what: "merged" | "shape" | "adapter"): Promise<string | undefined> {
    const run = await this.#store.get(id);
    const left = run?.result?.paths[what];
    if (!run || !left) return undefined;
    // A link there could lead anywhere.
    const folder = await Deno.realPath(run.folder);
    const path = await pathWithin(folder, left);
    return path !== undefined && await staysWithin(folder, path) ? path : undefined;
  }
}

/** Takes the paths of named things, and of whatever else, out of texts. */
function hider(
  { models, datasets, example }: { models: string[]; datasets: string[]; example?: string },
  dataFolder: string,
  uploads: Uploads,
): Hide {
  // Those within others first.
  const folders = [...models, ...datasets, ...(example === undefined ? [] : [example])]
    .map((folder) => folder.endsWith(SEPARATOR) ? folder : folder + SEPARATOR)
    .sort((a, b) => b.length - a.length);
  const exampleData = example === undefined
    ? []
    : Object.entries(EXAMPLE_DATA).map(([name, file]) => [join(example, file), name] as const);
  return (text) => {
    text = uploads.hide(text);
    for (const [path, name] of exampleData) text = text.replaceAll(path, name);
    for (const folder of [...folders, dataFolder]) text = text.replaceAll(folder, "");
    return withoutFolders(withHubNames(text));
  };
}

/** A text in which names stand for places in a cache of the hub's models. */
function withHubNames(text: string): string {
  return text.replace(
    /\/[^\s:,;'"`()]*\/models--([\w.-]+)\/snapshots\/([0-9a-f]{40})((?:\/[^\s:,;'"`()]+)?)/g,
    (_, name: string, commit: string, path: string) => `hf:${name.replace("--", "/")}${path}@${commit}`,
  );
}

async function realFolders(folders: readonly string[]): Promise<string[]> {
  const real: string[] = [];
  for (const folder of folders) {
    try {
      const path = await Deno.realPath(folder);
      if (!(await Deno.stat(path)).isDirectory) {
        throw new InputError("is no folder", {
          where: folder,
          hint: "Name the folder that models or datasets lie in.",
        });
      }
      real.push(path);
    } catch (error) {
      throw error instanceof InputError ? error : unreadable(folder, error);
    }
  }
  return real;
}

/** The path of an entry once links are followed; undefined where that leads out of the folder or nowhere. */
async function pathWithin(folder: string, name: string): Promise<string | undefined> {
  const path = await Deno.realPath(join(folder, name)).catch(() => undefined);
  return path?.startsWith(folder + SEPARATOR) ? path : undefined;
}

/** Whether nothing in a model leads out of the folder that it lies in: permissions of a process follow links. */
async function staysWithin(folder: string, model: string): Promise<boolean> {
  if (!(await Deno.stat(model)).isDirectory) return true;
  for await (const { name, isSymlink } of Deno.readDir(model)) {
    if (!isSymlink) continue;
    const path = await Deno.realPath(join(model, name)).catch(() => undefined);
    if (!path?.startsWith(folder + SEPARATOR)) return false;
  }
  return true;
}

async function fileInfo(path: string): Promise<{ createdAt: string }> {
  const { mtime } = await Deno.stat(path);
  return { createdAt: (mtime ?? new Date(0)).toISOString() };
}

function firstOfEachName(files: readonly NamedFile[]): NamedFile[] {
  const byName = new Map<string, NamedFile>();
  for (const file of files) if (!byName.has(file.name)) byName.set(file.name, file);
  return [...byName.values()].sort((a, b) => a.name < b.name ? -1 : 1);
}
