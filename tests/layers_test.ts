/**
 * The direction of imports: command line -> server -> runs -> distill -> models, text, formats, registry -> tensor -> gpu ->
 * base. The core runs in a browser page too, so it knows neither Deno nor packages; plugins are known to the outermost files only.
 */
// @ts-types="../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
// @ts-types="../types/std_path.d.ts"
import { join, relative } from "@std/path";

const root = decodeURIComponent(new URL("..", import.meta.url).pathname);

/** Rooms from the ground up. A file may import its own room and those further down, not its neighbours. */
const FLOORS: readonly (readonly string[])[] = [
  ["base"],
  ["gpu"],
  ["tensor"],
  ["models", "text", "formats", "registry"],
  ["distill"],
  ["runs"],
  ["server"],
  // Above the service, because one of its verbs starts it.
  ["cli"],
];

/** Where Deno and packages other than zod have no place. */
const CORE = /^(src\/(gpu|tensor|models|registry)|plugins)\b/;
/** The outermost files, which put the pieces together: only they know the built-in plugins. */
const COMPOSITION_ROOTS = /^(mod\.ts|src\/cli\/|src\/server\/|src\/runs\/child\/\w+_entry\.ts)/;
/** All that plugins see of Limbeck. */
const CONTRACT = /^src\/registry\/(contract|tensor_ops)\.ts$/;

/** What a file imports: static, dynamic and re-exporting specifiers, comments left aside. */
function importsOf(source: string): string[] {
  const code = withoutComments(source);
  const found = code.matchAll(
    /(?:^|[;}\s])(?:import|export)\s+(?:type\s+)?(?:[\w$*{},\s]+?\s+from\s+)?"([^"]+)"|\bimport\(\s*"([^"]+)"/g,
  );
  return [...found].map((m) => (m[1] ?? m[2])!);
}

/** Strings stay whole: some hold what looks like a comment. */
function withoutComments(source: string): string {
  return source.replace(
    /("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|\/\*[^]*?\*\/|(^|\s)\/\/[^\n]*/g,
    (_, text?: string, before?: string) => text ?? before ?? "",
  );
}

/** What is wrong with the imports of the file at `path`, relative to the repository's root. */
function complaints(path: string, source: string): string[] {
  const found: string[] = [];
  const place = (file: string) => FLOORS.findIndex((rooms) => rooms.includes(roomOf(file)));
  for (const specifier of importsOf(source)) {
    const say = (why: string) => found.push(`${path} imports ${specifier}: ${why}`);
    if (!specifier.startsWith(".")) {
      if (CORE.test(path) && specifier !== "zod") say("the core uses no package but zod");
      continue;
    }
    const target = join(path, "..", specifier);
    if (target.startsWith("plugins/") && !path.startsWith("plugins/")) {
      if (!COMPOSITION_ROOTS.test(path)) say("only composition roots know the plugins");
    } else if (path.startsWith("plugins/")) {
      if (!target.startsWith("plugins/") && !CONTRACT.test(target) && !target.endsWith(".wgsl")) {
        say("plugins see only the plugin contract");
      }
    } else if (path.startsWith("src/") && target.startsWith("src/") && roomOf(path) !== roomOf(target)) {
      if (place(path) < 0 || place(target) < 0) say("one of the two is in no known room");
      else if (place(target) >= place(path)) say("imports point down only");
    } else if (path.startsWith("src/") && target === "mod.ts") say("imports point down only");
  }
  if (CORE.test(path) && /\bDeno\s*[.?[]/.test(withoutComments(source))) found.push(`${path} uses Deno`);
  return found;
}

function roomOf(path: string): string {
  return path.split("/")[1] ?? path;
}

function* typescriptFiles(folder: string): Generator<string> {
  for (const entry of Deno.readDirSync(folder)) {
    const path = join(folder, entry.name);
    if (entry.isDirectory) yield* typescriptFiles(path);
    else if (entry.name.endsWith(".ts")) yield path;
  }
}

Deno.test("imports point one way", () => {
  const files = [
    join(root, "mod.ts"),
    ...["src", "plugins"].flatMap((f) => [...typescriptFiles(join(root, f))]),
  ];
  assert(files.length > 100, `only ${files.length} files were looked at`);
  let count = 0;
  const found = files.flatMap((file) => {
    const source = Deno.readTextFileSync(file);
    count += importsOf(source).length;
    return complaints(relative(root, file), source);
  });
  assert(count > 500, `only ${count} imports were found`);
  assertEquals(found, []);
});

Deno.test("the check of imports notices planted mistakes", () => {
  const plant = (path: string, source: string) => complaints(path, source).map((c) => c.split(": ").at(-1));
  const down = "imports point down only";
  assertEquals(plant("src/tensor/op.ts", 'import type { A } from "../gpu/description.ts";'), []);
  assertEquals(plant("src/gpu/device.ts", 'import type { A } from "../tensor/op.ts";'), [down]);
  assertEquals(plant("src/models/llama.ts", 'import {\n  A,\n  b,\n} from "../registry/registry.ts";'), [
    down,
  ]);
  assertEquals(plant("src/distill/a.ts", 'const x = await import("../runs/child.ts");'), [down]);
  assertEquals(plant("src/distill/a.ts", 'export * from "../runs/child.ts";'), [down]);
  assertEquals(plant("src/runs/a.ts", 'import "../../mod.ts";'), [down]);
  assertEquals(plant("src/distill/a.ts", 'import { builtins } from "../../plugins/mod.ts";'), [
    "only composition roots know the plugins",
  ]);
  assertEquals(
    plant("src/runs/child/train_entry.ts", 'import { builtins } from "../../../plugins/mod.ts";'),
    [],
  );
  assertEquals(plant("src/tensor/a.ts", 'import { z } from "zod";\nimport x from "npm:other@1.0.0";'), [
    "the core uses no package but zod",
  ]);
  assertEquals(plant("src/text/a.ts", 'import { createHash } from "node:crypto";'), []);
  assertEquals(plant("plugins/losses/a.ts", 'import { add } from "../../src/tensor/ops/combine.ts";'), [
    "plugins see only the plugin contract",
  ]);
  assertEquals(plant("src/models/a.ts", "const text = await Deno.readTextFile(path);"), [
    "src/models/a.ts uses Deno",
  ]);
  assertEquals(plant("src/models/a.ts", '// import { A } from "../runs/a.ts";\n/* Deno.exit() */'), []);
});
