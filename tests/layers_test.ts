/**
 * The direction of imports: command line -> server -> runs -> shape -> distill -> served -> hub -> registry, evaluation -> models, text, formats ->
 * tensor -> gpu -> base; tune beside losses; inside a room, from each of its rooms to those before it; and nowhere in a circle. The core runs in a browser page too, so it
 * knows neither Deno nor packages, and a bundle for one is made of it; plugins are known to the outermost files only.
 */
// @ts-types="../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
// @ts-types="../types/std_path.d.ts"
import { join, relative } from "@std/path";
import { bundleWorker } from "../src/tab/bundle.ts";

const root = decodeURIComponent(new URL("..", import.meta.url).pathname);

/** Rooms from the ground up. A file may import its own room and those further down, not its neighbours. */
const FLOORS: readonly (readonly string[])[] = [
  ["base"],
  ["gpu", "linalg"],
  ["tensor"],
  ["losses", "tune"],
  ["models", "text", "formats"],
  ["registry", "evaluation"],
  ["hub"],
  ["served"],
  ["distill", "merge"],
  ["shape"],
  ["runs", "tab"],
  ["server"],
  // Above the service, because one of its verbs starts it.
  ["cli"],
];

/**
 * Rooms within rooms, each of which may import those before it. Files that lie in the outer room itself are its ground or its roof: of
 * them only circles are refused.
 */
const ROOMS: Readonly<Record<string, readonly string[]>> = {
  models: ["decoder", "families"],
  text: ["sentencepiece", "alignment", "read", "stream"],
  formats: ["safetensors", "sentencepiece", "huggingface", "peft", "gguf", "quantised"],
  registry: ["check", "kinds"],
  losses: ["kernel"],
  evaluation: ["scores", "tasks", "results"],
  tensor: ["expr", "ops"],
  distill: [
    "recipe",
    "inputs",
    "trained",
    "objective",
    "program",
    "teacher",
    "checkpoint",
    "generate",
    "rationales",
    "evaluate",
    "export",
    "run",
  ],
  merge: ["recipe", "parents", "written", "engine", "residual", "adapters"],
  shape: ["depth", "width"],
  runs: ["task", "child", "served", "store", "supervise", "report", "compare", "chain"],
  server: ["auth", "http", "page", "routes", "openai"],
  cli: ["setup", "terminal", "verbs"],
};

/** Where Deno and packages other than zod have no place. */
const CORE = /^(src\/(gpu|tensor|tune|losses|models|registry|distill\/program)|plugins)\b/;
/** Where Deno is spoken to through `src/base/system.ts` alone, so that a whole run works in a browser's tab too. */
const BY_SYSTEM = /^src\/(base\/(?!system\.ts)|(linalg|text|formats|evaluation|distill)\/)/;
/** What a page needs to train: from these all of the core is reached. */
const CORE_ENTRIES = [
  "src/distill/program/plan_training.ts",
  "src/gpu/device.ts",
  "src/tune/tune.ts",
  "plugins/mod.ts",
];
/** WebGPU is spoken to in one room; scripts of a page ask whether there is one. */
const WEBGPU = /\bGPU[A-Z]\w*\s*\.|\bnavigator\s*\.\s*gpu\b/;
/** The outermost files, which put the pieces together: only they know the built-in plugins. */
const COMPOSITION_ROOTS =
  /^(mod\.ts|src\/cli\/|src\/server\/|src\/tab\/|src\/runs\/child\/inside\/\w+_entry\.ts)/;
/** Model families, each known to the table of them alone. */
const FAMILIES = /^src\/models\/families\//;
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
    if (FAMILIES.test(target) && path !== "src/models/families.ts") {
      say("only the table of families knows them");
    }
    if (target.startsWith("plugins/") && !path.startsWith("plugins/")) {
      if (!COMPOSITION_ROOTS.test(path)) say("only composition roots know the plugins");
    } else if (path.startsWith("plugins/")) {
      if (!target.startsWith("plugins/") && !CONTRACT.test(target) && !target.endsWith(".wgsl")) {
        say("plugins see only the plugin contract");
      }
    } else if (path.startsWith("src/") && target.startsWith("src/") && roomOf(path) !== roomOf(target)) {
      if (place(path) < 0 || place(target) < 0) say("one of the two is in no known room");
      else if (place(target) >= place(path)) say("imports point down only");
    } else if (path.startsWith("src/") && roomOf(path) === roomOf(target)) {
      const rooms = ROOMS[roomOf(path)] ?? [];
      const [own, other] = [innerRoomOf(path), innerRoomOf(target)];
      for (const inner of [own, other]) {
        if (inner !== undefined && !rooms.includes(inner)) {
          say(`${inner} is no known room of ${roomOf(path)}`);
        }
      }
      if (own !== undefined && other !== undefined && rooms.indexOf(other) > rooms.indexOf(own)) {
        say(`in ${roomOf(path)}, ${other} comes after ${own}`);
      }
    } else if (path.startsWith("src/") && target === "mod.ts") say("imports point down only");
  }
  if (
    /^(src|plugins)\/.*\.ts$/.test(path) && !path.startsWith("src/gpu/") &&
    WEBGPU.test(withoutComments(source))
  ) {
    found.push(`${path} uses WebGPU's globals, which only src/gpu may`);
  }
  const namesDeno = (CORE.test(path) || BY_SYSTEM.test(path)) &&
    /\bDeno\s*[.?[]/.test(withoutComments(source));
  if (namesDeno) found.push(`${path} uses Deno`);
  return found;
}

function roomOf(path: string): string {
  return path.split("/")[1] ?? path;
}

/** The room within its room that a file lies in; undefined where it lies in the outer one. */
function innerRoomOf(path: string): string | undefined {
  const parts = path.split("/");
  return parts.length > 3 ? parts[2] : undefined;
}

/** Circles among files: each group of files from all of which all the others are reached. */
function circles(imports: ReadonlyMap<string, readonly string[]>): string[][] {
  // Tarjan, "Depth-first search and linear graph algorithms", SIAM Journal on Computing 1(2), 1972.
  const [index, low] = [new Map<string, number>(), new Map<string, number>()];
  const stack: string[] = [];
  const found: string[][] = [];
  const visit = (file: string) => {
    index.set(file, index.size);
    low.set(file, index.get(file)!);
    stack.push(file);
    for (const target of imports.get(file) ?? []) {
      if (!index.has(target)) visit(target);
      if (stack.includes(target)) low.set(file, Math.min(low.get(file)!, low.get(target)!));
    }
    if (low.get(file) !== index.get(file)) return;
    const group = stack.splice(stack.indexOf(file));
    if (group.length > 1 || imports.get(file)?.includes(file)) found.push(group.sort());
  };
  for (const file of imports.keys()) if (!index.has(file)) visit(file);
  return found;
}

function* typescriptFiles(folder: string): Generator<string> {
  for (const entry of Deno.readDirSync(folder)) {
    const path = join(folder, entry.name);
    if (entry.isDirectory) yield* typescriptFiles(path);
    else if (/\.[tj]s$/.test(entry.name)) yield path;
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

Deno.test("no file imports itself by way of others", () => {
  const files = ["src", "plugins", "tests", "bench"].flatMap((f) => [...typescriptFiles(join(root, f))]);
  const imports = new Map(files.map((file) => {
    const targets = importsOf(Deno.readTextFileSync(file)).filter((specifier) => specifier.startsWith("."));
    return [relative(root, file), targets.map((specifier) => relative(root, join(file, "..", specifier)))];
  }));
  assertEquals(circles(imports), []);
});

Deno.test("the check of circles notices planted ones", () => {
  const graph = (edges: Record<string, string[]>) => circles(new Map(Object.entries(edges)));
  assertEquals(graph({ a: ["b", "c"], b: ["c"], c: [] }), []);
  assertEquals(graph({ a: ["b"], b: ["c"], c: ["b", "d"], d: [] }), [["b", "c"]]);
  assertEquals(graph({ a: ["b"], b: ["c"], c: ["a"], d: ["e"], e: ["d"] }), [["a", "b", "c"], ["d", "e"]]);
  assertEquals(graph({ a: ["a"] }), [["a"]]);
});

Deno.test("the core makes a bundle for a browser, which names nothing of Deno or Node", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const entry = join(folder, "core.ts");
    const imports = CORE_ENTRIES.map((path) =>
      `export * from ${JSON.stringify(new URL(path, `file://${root}`).href)};`
    );
    await Deno.writeTextFile(entry, imports.join("\n"));
    const { code, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        "bundle",
        "--quiet",
        "--platform",
        "browser",
        "--config",
        join(root, "deno.json"),
        "-o",
        `${folder}/core.js`,
        entry,
      ],
      cwd: root,
    }).output();
    assertEquals(code, 0, new TextDecoder().decode(stderr));
    const bundle = await Deno.readTextFile(join(folder, "core.js"));
    assert(
      bundle.includes("createShaderModule") && bundle.includes("forward-kl"),
      "it does not hold the core",
    );
    assertEquals(bundle.match(/\bDeno\s*[.?[].*|["']node:.*/g) ?? [], []);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a whole run makes a bundle for a browser's worker", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const bundle = await bundleWorker(folder);
    for (const part of ["createShaderModule", "adapter_config.json", "indexedDB", "chat_template"]) {
      assert(bundle.includes(part), `it does not hold ${part}`);
    }
    // Deno's library of paths asks whether there is a Deno.
    assertEquals(bundle.match(/\bDeno\s*[.[].{0,40}|["']node:.{0,20}|\bBuffer\./g) ?? [], []);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("the check of imports notices planted mistakes", () => {
  const plant = (path: string, source: string) => complaints(path, source).map((c) => c.split(": ").at(-1));
  const down = "imports point down only";
  assertEquals(plant("src/tensor/op.ts", 'import type { A } from "../gpu/description.ts";'), []);
  assertEquals(plant("src/gpu/device.ts", 'import type { A } from "../tensor/op.ts";'), [down]);
  assertEquals(
    plant("src/models/families/llama.ts", 'import {\n  A,\n  b,\n} from "../../registry/registry.ts";'),
    [
      down,
    ],
  );
  assertEquals(plant("src/distill/a.ts", 'const x = await import("../runs/child.ts");'), [down]);
  assertEquals(plant("src/distill/a.ts", 'export * from "../runs/child.ts";'), [down]);
  assertEquals(plant("src/runs/a.ts", 'import "../../mod.ts";'), [down]);
  assertEquals(plant("src/distill/a.ts", 'import { builtins } from "../../plugins/mod.ts";'), [
    "only composition roots know the plugins",
  ]);
  assertEquals(
    plant("src/runs/child/inside/train_entry.ts", 'import { builtins } from "../../../../plugins/mod.ts";'),
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
  assertEquals(plant("src/formats/a.ts", "await Deno.stat(path);"), ["src/formats/a.ts uses Deno"]);
  assertEquals(plant("src/base/system.ts", "export const system: System = Deno;\nDeno.cwd();"), []);
  assertEquals(plant("src/distill/program/a.ts", 'import type { A } from "../run/b.ts";'), [
    "in distill, run comes after program",
  ]);
  assertEquals(plant("src/distill/program/a.ts", 'import type { A } from "../trained/b.ts";'), []);
  assertEquals(plant("src/distill/odd/a.ts", 'import type { A } from "./b.ts";'), [
    "odd is no known room of distill",
    "odd is no known room of distill",
  ]);
  assertEquals(plant("src/distill/program/a.ts", 'import { llama } from "../../models/families/llama.ts";'), [
    "only the table of families knows them",
  ]);
  assertEquals(plant("src/models/families.ts", 'import { llama } from "./families/llama.ts";'), []);
  assertEquals(plant("src/tensor/a.ts", "const usage = GPUBufferUsage.STORAGE;"), [
    "src/tensor/a.ts uses WebGPU's globals, which only src/gpu may",
  ]);
  assertEquals(plant("src/gpu/a.ts", "const usage = GPUBufferUsage.STORAGE;"), []);
  assertEquals(plant("src/models/a.ts", '// import { A } from "../runs/a.ts";\n/* Deno.exit() */'), []);
});
