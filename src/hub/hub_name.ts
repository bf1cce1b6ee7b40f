/**
 * How a model or a dataset of the hub is named: `hf:org/name`, with `@revision` and, for one file or folder of it, `/path` between the two.
 *
 * ```
 * hf:org/name                       the newest state of its main branch
 * hf:org/name@v1.0                  a branch, a tag, or a commit
 * hf:org/name/model-Q8_0.gguf       a GGUF file of it
 * hf:org/name/step-500@refs/pr/2    a folder of it, at a pull request
 * hf:datasets/org/name              the training split of a dataset
 * hf:datasets/org/name/data/test-*.parquet@v1.0
 * ```
 *
 * The revision comes last, because some have slashes in them.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";

/** A model or a dataset of the hub, as it was named. */
export interface HubName {
  /** Absent of models. */
  readonly kind?: "dataset";
  /** `org/name`; a few old ones have no `org`. */
  readonly repository: string;
  /**
   * A GGUF file, or a folder with a model in it; of a dataset a file, several by a `*` in their names, or a folder. The whole repository when
   * absent.
   */
  readonly path?: string;
  /** Branch, tag or commit. */
  readonly revision: string;
}

const SCHEME = "hf:";
const DATASETS = "datasets/";
const MAIN = "main";
/** A part of a repository's name, as the hub allows it. */
const PART = /^(?![-.])(?!.*(--|\.\.))[A-Za-z0-9._-]{1,96}(?<![-.])$/;
/** Parts of paths and revisions become names of files and folders. */
const SEGMENT = /^(?!\.{1,2}$)[^\p{Cc}\\:*?"<>|@#%]{1,200}$/u;
/** The last part of a path may mean several files of a dataset. */
const PATTERN = /^(?!\.{1,2}$)[^\p{Cc}\\:?"<>|@#%]{1,200}$/u;
const COMMIT = /^[0-9a-f]{40}$/;

/** Whether a text names a model or a dataset of the hub; it may do so badly. */
export function isHubName(text: string): boolean {
  return text.startsWith(SCHEME);
}

/** Whether a text names a dataset of the hub. */
export function isHubDataset(text: string): boolean {
  return text.startsWith(SCHEME + DATASETS);
}

/** Whether a revision is a whole commit, whose files never change. */
export function isCommit(revision: string): boolean {
  return COMMIT.test(revision);
}

/**
 * Reads a name.
 *
 * @param where The field or flag that it stands in, for the error
 * @throws {InputError} it is not formed as one
 */
export function parseHubName(text: string, where?: string): HubName {
  const kind = isHubDataset(text) ? "dataset" : undefined;
  const refuse = (why: string): never => {
    throw new InputError(`"${text}" names no ${kind ?? "model"} of the hub: ${why}`, {
      ...(where === undefined ? {} : { where }),
      hint: kind
        ? "Write hf:datasets/ORG/NAME, hf:datasets/ORG/NAME@REVISION or hf:datasets/ORG/NAME/FILE.parquet@REVISION."
        : "Write hf:ORG/NAME, hf:ORG/NAME@REVISION or hf:ORG/NAME/FILE.gguf@REVISION.",
    });
  };
  if (!isHubName(text)) return refuse("it does not begin with hf:");
  const [named, revision = MAIN, ...more] = text.slice(SCHEME.length + (kind ? DATASETS.length : 0)).split(
    "@",
  );
  if (more.length > 0) return refuse("it has more than one @");
  if (!revision.split("/").every((part) => SEGMENT.test(part))) {
    return refuse(`"${revision}" is no revision`);
  }
  const parts = named!.split("/");
  const wrong = parts.slice(0, 2).find((part) => !PART.test(part));
  if (wrong !== undefined) {
    return refuse(wrong === "" ? "a part of it is empty" : `no repository can have "${wrong}" in its name`);
  }
  const path = parts.slice(2);
  const last = path.length - 1;
  if (!path.every((part, i) => (kind && i === last ? PATTERN : SEGMENT).test(part))) {
    return refuse(`"${path.join("/")}" is no path`);
  }
  return {
    ...(kind ? { kind } : {}),
    repository: parts.slice(0, 2).join("/"),
    ...(path.length > 0 ? { path: path.join("/") } : {}),
    revision,
  };
}

/** How a model or a dataset is written. */
export function writeHubName({ kind, repository, path, revision }: HubName): string {
  return `${SCHEME}${kind ? DATASETS : ""}${repository}${path === undefined ? "" : `/${path}`}${
    revision === MAIN ? "" : `@${revision}`
  }`;
}
