/**
 * Which files of tests share a process.
 *
 * Files of one folder are imported by one module: what they import is evaluated once instead of once a file, and the device that they
 * share compiles each kernel once.
 *
 * @module
 */

/** Files that see what others of the same process do, or end it: each has a process of its own. */
const OWN_PROCESS: readonly string[] = [
  // Counts the memory of its process.
  "tests/server/uploads_test.ts",
  // Counts the pipelines of a device.
  "tests/tensor/executable_test.ts",
  // Takes the place of the runtime's own WebGPU.
  "tests/gpu/dawn_test.ts",
];

/** Folders whose groups take longest: they begin first, so that short ones fill what is left at the end. */
const LONG_FOLDERS = [
  "losses",
  "goldens",
  "distill",
  "tensor",
  "shape",
  "adapters",
  "cli",
  "server",
  "runs",
  "evaluation",
  "served",
];

/** The most files of a process: what runs long leaves a core without work at the end, and what breaks takes the others along. */
const MOST_FILES = 10;

/** Folders, and files, whose tests start each kernel a few times on little data. */
const COMPILES: readonly string[] = [
  "losses",
  "tensor",
  "tests/registry/check_test.ts",
  "tests/goldens/families_test.ts",
];

/**
 * Variables of a process that make Mesa's software driver compile sooner and what it compiles slower, where tests wait for the compiler more
 * than for kernels: a sixth to a quarter of their processor time. Files that train take longer so.
 */
export function driverOptions(group: readonly string[]): Record<string, string> {
  const [first] = group;
  return COMPILES.includes(first!) || COMPILES.includes(folderOf(first!)) ? { GALLIVM_PERF: "nopt" } : {};
}

/** The folder of a file of tests, below `tests/`; empty for one that is in none. */
function folderOf(file: string): string {
  return file.split("/").slice(1, -1).join("/");
}

/**
 * Parts files into those that one process runs, in the order in which they begin.
 *
 * @param files paths from the root of the project
 * @param alone files that have a process of their own whatever they do
 */
export function groupsOf(files: readonly string[], alone: readonly string[] = []): string[][] {
  const single = (file: string) => alone.includes(file) || OWN_PROCESS.includes(file);
  const byFolder = Map.groupBy(files.filter((file) => !single(file)), folderOf);
  const place = (folder: string) => {
    const found = LONG_FOLDERS.indexOf(folder);
    return found < 0 ? LONG_FOLDERS.length : found;
  };
  const shared = [...byFolder].sort(([a], [b]) => place(a) - place(b) || (a < b ? -1 : 1)).flatMap((
    [, inFolder],
  ) => evenParts(inFolder, MOST_FILES));
  return [...files.filter(single).map((file) => [file]), ...shared];
}

/** As few parts of about the same length as none being longer than `most` allows. */
function evenParts<T>(all: readonly T[], most: number): T[][] {
  const count = Math.ceil(all.length / most);
  return Array.from(
    { length: count },
    (_, i) => all.slice(Math.floor(i * all.length / count), Math.floor((i + 1) * all.length / count)),
  );
}

/** Source of a module that has the tests of files. */
export function groupModule(files: readonly string[], root: URL): string {
  return files.map((file) => `import ${JSON.stringify(new URL(file, root).href)};\n`).join("");
}
