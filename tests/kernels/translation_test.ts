// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertMatch } from "@std/assert";
import { NagaError, parseWgsl, validate, writeHlsl, writeMsl, writeSpirv } from "npm:naga-wasm@30.1.0";
import type { KernelText } from "../../src/gpu/description.ts";
import { compileWithTint } from "../../src/runs/child/tint.ts";
import { kernelTexts, unreachedLines } from "./texts.ts";

const texts = await kernelTexts();

/** The shortest of the kernels with this word in their text. */
function kernelWith(word: string): string {
  const found = texts.filter(({ wgsl }) => wgsl.includes(word)).map(({ wgsl }) => wgsl);
  return found.reduce((a, b) => (b.length < a.length ? b : a));
}

function planted(label: string, original: string, find: string, replace: string): KernelText {
  assert(original.includes(find), `the kernel for "${label}" no longer has the line to spoil`);
  return { label, family: "tiled", wgsl: original.replace(find, replace) };
}

const barrier = planted(
  "planted: a barrier for some threads only",
  kernelWith("workgroupBarrier();"),
  "workgroupBarrier();",
  "if (thread < 7u) { workgroupBarrier(); }",
);
const wrongType = planted(
  "planted: a float for an integer",
  kernelWith("@builtin(local_invocation_index) thread: u32"),
  "@builtin(local_invocation_index) thread: u32",
  "@builtin(local_invocation_index) thread: f32",
);
const hiddenSubgroups = planted(
  "planted: a subgroup operation in a kernel for any device",
  kernelWith("out[i] ="),
  "out[i] =",
  "out[i] = subgroupAdd(1.0) *",
);

/** Translates to SPIR-V (Vulkan), MSL (Metal) and HLSL (Direct3D 12); what naga has against the kernel, if anything. */
function nagaRefusal(wgsl: string): string | undefined {
  try {
    using module = parseWgsl(wgsl);
    using info = validate(module);
    assertEquals(writeSpirv(module, info)[0], 0x07230203, "SPIR-V begins with its magic number");
    assertMatch(writeMsl(module, info, { langVersion: [2, 4] }), /kernel void main_\(/);
    assertMatch(writeHlsl(module, info, { shaderModel: "6_2" }), /\bnumthreads\(/);
  } catch (error) {
    if (error instanceof NagaError) return error.formatted;
    throw error;
  }
}

/**
 * Whether a kernel is refused for the workgroup memory alone that the adapter under Tint does not have, where it is for devices that have 32 KiB. By
 * then its text has been read, resolved and found uniform.
 */
function isLarge(label: string, why: string): boolean {
  const bytes = /total use of workgroup storage \((\d+) bytes\) is larger than the maximum allowed/.exec(why);
  return label.includes("(variants of ") && bytes !== null && Number(bytes[1]) <= 32_768;
}

/** Every file under kernels/ by its path there. */
function* templates(folder = ""): Generator<[string, string]> {
  const root = new URL("../../kernels/", import.meta.url);
  for (const { name, isDirectory } of Deno.readDirSync(new URL(folder, root))) {
    if (isDirectory) yield* templates(`${folder}${name}/`);
    else yield [`${folder}${name}`, Deno.readTextFileSync(new URL(folder + name, root))];
  }
}

Deno.test("every line of every file in kernels/ is in a kernel that some program uses", () => {
  const unreached: string[] = [];
  const heads = new Map<string, string>();
  for (const [name, template] of templates()) {
    const head = template.split("\n", 1)[0]!;
    assert(/^\/\/ [^$#]+$/.test(head), `${name} must begin with a line that says what it computes`);
    assert(!heads.has(head), `${name} and ${heads.get(head)} begin with the same line`);
    heads.set(head, name);
    const lines = unreachedLines(template, texts);
    if (lines.length > 0) unreached.push(`${name}:\n    ${lines.join("\n    ")}`);
  }
  assertEquals(unreached.sort(), []);
});

Deno.test("unreachedLines() names a branch of a template that nothing uses", () => {
  const template = "// Adds.\n//#if A\nlet x = $(A * 2)u;\n//#else\nlet y = 1u;\n//#end\n";
  const text = { label: "", family: "tiled" as const, wgsl: "// Adds.\nlet x = 6u;\n" };
  assertEquals(unreachedLines(template, [text]), ["5: let y = 1u;"]);
  assertEquals(unreachedLines(template, [{ ...text, wgsl: "// Subtracts.\nlet y = 1u;\n" }]).length, 2);
});

Deno.test("every kernel translates to SPIR-V, MSL and HLSL under naga", () => {
  const refused = texts.flatMap(({ label, wgsl }) => {
    const why = nagaRefusal(wgsl);
    return why ? [`${label}\n${why}`] : [];
  });
  // Small matrices of subgroups are an extension that naga spells in another way.
  const [matrices, others] = [true, false].map((of) =>
    refused.filter((why) => / subgroup matrix /.test(why) === of)
  );
  assertEquals(others, []);
  assertEquals(matrices!.length, texts.filter(({ label }) => / subgroup matrix /.test(label)).length);
  assertMatch(nagaRefusal(wrongType.wgsl) ?? "", /type/i);
  // naga lets this pass: it is what the second compiler is for.
  assertEquals(nagaRefusal(barrier.wgsl), undefined);
});

Deno.test("every kernel compiles under Tint", async (t) => {
  const report = await compileWithTint([...texts, barrier, wrongType, hiddenSubgroups], { fetch: true });
  if ("unavailable" in report) {
    if (/checksum|integrity/i.test(report.unavailable)) throw new Error(report.unavailable);
    console.log(`skip: ${t.name}: ${report.unavailable}`);
    return;
  }
  const { refused, unproven } = report;
  assertMatch(
    refused[barrier.label] ?? "",
    /workgroupBarrier' must only be called from uniform control flow/,
  );
  assertMatch(refused[wrongType.label] ?? "", /no matching overload/);
  assertMatch(refused[hiddenSubgroups.label] ?? "", /subgroup/);
  const plantedLabels = [barrier, wrongType, hiddenSubgroups].map(({ label }) => label);
  assertEquals(
    Object.entries(refused).filter(([label, why]) => !plantedLabels.includes(label) && !isLarge(label, why))
      .map((e) => e.join("\n")),
    [],
  );
  // The ranges of keys and queries of a subgroup: equal in all lanes, which WGSL cannot express.
  assertEquals(
    Object.entries(unproven).filter(([label]) =>
      !/^\d+: attention( dq| dk dv| apart)?( \d+x\d+)? \(/.test(label)
    ),
    [],
  );
});
