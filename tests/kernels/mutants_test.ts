/** What the rules make of a kernel. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { mutate, withoutBarriers } from "./mutants.ts";

const KERNEL = `struct Size { count: u32, factor: f32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> size: Size;

// Comments say nothing.
@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let row = group.x * 8u + thread;
  if (row >= size.count) { return; }
  var sum0 = 0.0;
  var sum1 = 0.0;
  for (var k = thread; k < size.count; k += 8u) {
    sum0 += x[k] * min(f32(k), 3.0);
    sum1 += x[k + 1u] * min(f32(k), 3.0);
  }
  y[row] = select(0.0, sum0 + sum1, row > 2u) * size.factor;
}
`;

const rulesOf = (place: RegExp) =>
  mutate(KERNEL, { first: 1, index: 5 }).mutants.filter((m) => place.test(m.place)).map((m) => m.rule);

Deno.test("each rule finds its places in a kernel", () => {
  assertEquals(rulesOf(/^main: let row = group/), ["zero", "one more"]);
  assertEquals(rulesOf(/^main: group.x \* #u \+ thread in let row/), ["term dropped"]);
  assertEquals(rulesOf(/^main: row >= size.count in if/), ["never", "always", "at the edge"]);
  assertEquals(rulesOf(/^main: k < size.count in for/), ["a turn less"]);
  assertEquals(rulesOf(/^main: select\(/), ["first choice", "second choice"]);
  assertEquals(rulesOf(/^main: size.factor in y/), ["other size"]);
  assertEquals(rulesOf(/^main: y\[row\] = select/), ["left out"]);
});

Deno.test("what unrolling repeats is one place, of which the last copy gets the mistake, or all do", () => {
  const twice = KERNEL.replace("x[k + 1u]", "x[k]");
  const { mutants, wgsl } = mutate(twice, { first: 1, index: 0 });
  const [sum, ...others] = mutants.filter(({ rule, place }) =>
    rule === "left out" && /^main: sum#/.test(place)
  );
  assertEquals(others, []);
  assert(wgsl.includes(`if (!(mistake == ${sum!.number}.0)) { sum1 += `), wgsl);
  const all = mutate(twice, { first: 1, index: 0, copy: "every" }).wgsl;
  for (const sums of ["sum0", "sum1"]) {
    assert(all.includes(`if (!(mistake == ${sum!.number}.0)) { ${sums} += `), all);
  }
});

Deno.test("bits that are shifted out or masked are kept, and conditions are none", () => {
  const bits = KERNEL.replace("let row = group.x * 8u + thread;", "let row = (group.x >> 3u) & 7u;")
    .replace("row >= size.count", "(row >= size.count) & (row > 3u)");
  const places = mutate(bits, { first: 1, index: 5 }).mutants
    .flatMap(({ rule, place }) => rule === "all bits" ? [place.replace(/ in .*/, "")] : []);
  assertEquals(places, ["main: group.x >> #u", "main: (group.x >> #u) & #u"]);
});

Deno.test("a barrier is left out in a text of its own, of several before the same the last or all", () => {
  const waiting = KERNEL.replace("x[k + 1u]", "x[k]").replaceAll(
    /(sum\d) \+= /g,
    "workgroupBarrier();\n    $1 += ",
  )
    .replace("y[row] =", "workgroupBarrier();\n  y[row] =");
  const count = (text: string) => text.split("workgroupBarrier();").length - 1;
  const [sums, row, ...others] = withoutBarriers(waiting, "last");
  assertEquals([count(waiting), count(sums!.wgsl), count(row!.wgsl), others.length], [3, 2, 2, 0]);
  assert(/^main: before sum# \+= /.test(sums!.place) && /^main: before y\[row\] = /.test(row!.place));
  assert(sums!.wgsl.indexOf("workgroupBarrier") < sums!.wgsl.indexOf("sum0 +="));
  assertEquals(count(withoutBarriers(waiting, "every")[0]!.wgsl), 1);
});

Deno.test("a structure has no number to change", () => {
  const sizes = KERNEL.replace("var<uniform> size: Size", "var<uniform> sizes: array<Size, 4>")
    .replace("let row", "let size = sizes[group.z];\n  let row");
  assertEquals(mutate(sizes, { first: 1, index: 5 }).mutants.filter((m) => /let size/.test(m.place)), []);
  const made = KERNEL.replace("let row = group.x", "let at = place(group.x + 1u);\n  let row = group.x") +
    "struct Place { x: u32 }\nfn place(x: u32) -> Place { return Place(x); }\n";
  const rules = mutate(made, { first: 1, index: 5 }).mutants.filter((m) => /let at/.test(m.place));
  assertEquals(rules.map(({ rule }) => rule), ["term dropped"]);
});

Deno.test("mistakes are numbered, chosen by a number of the step, and loops end", () => {
  const { mutants, wgsl } = mutate(KERNEL, { first: 7, index: 6, wanted: (at) => at % 2 === 0 });
  assertEquals(mutants.map(({ number }) => number), mutants.map((_, i) => 7 + i));
  assertEquals(mutants.map(({ at }) => at), mutants.map((_, i) => 2 * i));
  for (const { number } of mutants) assert(wgsl.includes(`(mistake == ${number}.0)`), `${number}`);
  assert(wgsl.includes("let mistake = step[1][2] + select(0.0, 1.0, group.x == 0xffffffffu);"));
  assert(/for \(var k = thread; .* && goes_on\(\); k \+= 8u\)/.test(wgsl));
  assert(!wgsl.includes("//"));
});
