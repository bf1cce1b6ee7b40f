// @ts-types="../../types/std_assert.d.ts"
import { assertEquals } from "@std/assert";
import {
  accessVariant,
  FIRST_UNIFORM,
  inOneGroup,
  joinBindings,
  parseBindings,
} from "../../src/gpu/bindings.ts";

const KERNEL = `// @group(0) @binding(9) var<storage, read> in_a_comment: array<f32>;
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0)
@binding(1)
var< storage > implicit : array<u32>;
@group(1) @binding(0) var<uniform> size: Size; // @group(1) @binding(7) var<uniform> nothing: Size;
@group(1) @binding(1) var<storage,read> table: array<f32>;
var<workgroup> tile: array<f32, 64>;
var<private> lane: u32;
`;

Deno.test("parseBindings() finds every declared binding, in order, and no other variable", () => {
  assertEquals(parseBindings(KERNEL), [
    { group: 0, binding: 0, kind: "read", name: "x" },
    { group: 0, binding: 2, kind: "read_write", name: "out" },
    { group: 0, binding: 1, kind: "read", name: "implicit" },
    { group: 1, binding: 0, kind: "uniform", name: "size" },
    { group: 1, binding: 1, kind: "read", name: "table" },
  ]);
  assertEquals(parseBindings("fn f() {}"), []);
});

Deno.test("accessVariant() makes the named bindings of group 0 writable and changes nothing else", () => {
  const kinds = (wgsl: string) => parseBindings(wgsl).map((b) => `${b.name} ${b.kind}`);
  assertEquals(accessVariant(KERNEL, new Set()), KERNEL);
  assertEquals(kinds(accessVariant(KERNEL, new Set([0, 1]))), [
    "x read_write",
    "out read_write",
    "implicit read_write",
    "size uniform",
    "table read",
  ]);
  // What is writable already, absent, or in another group stays.
  assertEquals(accessVariant(KERNEL, new Set([2, 5])), KERNEL);
});

Deno.test("inOneGroup() puts the uniforms of group 1 behind the storage of group 0 and changes nothing else", () => {
  const moved = inOneGroup(KERNEL);
  const text = `@group(0) @binding(${FIRST_UNIFORM}) var<uniform> size`;
  assertEquals(moved.includes(text), true);
  assertEquals(parseBindings(moved), [
    { group: 0, binding: 0, kind: "read", name: "x" },
    { group: 0, binding: 2, kind: "read_write", name: "out" },
    { group: 0, binding: 1, kind: "read", name: "implicit" },
    { group: 0, binding: FIRST_UNIFORM, kind: "uniform", name: "size" },
    { group: 1, binding: 1, kind: "read", name: "table" },
  ]);
  // The lines stay, so that messages of compilers name the right ones, and a second time there is nothing left to move.
  assertEquals(moved.split("\n").length, KERNEL.split("\n").length);
  assertEquals(inOneGroup(moved), moved);
});

Deno.test("joinBindings() reads one binding through another of the same type, and nothing else changes", () => {
  const kernel = `@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(0) @binding(2) var< storage > x2 : array< f32 >;
@group(0) @binding(3) var<storage, read> words: array<u32>;
fn main() { out[0] = x[0] * x2[1] + f32(words[x2_size]) + size.x2; }
`;
  const joined = joinBindings(kernel, 2, 0)!;
  assertEquals(parseBindings(joined).map(({ name }) => name), ["x", "out", "words"]);
  assertEquals(joined.includes("out[0] = x[0] * x[1] + f32(words[x2_size]) + size.x2;"), true);
  // Other types, what is written, what is not there, and a name that means something else inside.
  assertEquals(joinBindings(kernel, 3, 0), undefined);
  assertEquals(joinBindings(kernel, 2, 1), undefined);
  assertEquals(joinBindings(kernel, 7, 0), undefined);
  assertEquals(joinBindings(kernel.replace("out[0] =", "let x = 1.0; out[0] ="), 2, 0), undefined);
});
