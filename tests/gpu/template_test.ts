// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertThrows } from "@std/assert";
import {
  expandTemplate,
  type TemplateConstants,
  TemplateError,
  type TemplateIncludes,
} from "../../src/gpu/template.ts";

function expanded(
  source: string,
  constants: TemplateConstants = {},
  includes: TemplateIncludes = {},
): string {
  return expandTemplate("test", source, constants, includes);
}

function refuses(
  source: string,
  message: string,
  constants: TemplateConstants = {},
  includes: TemplateIncludes = {},
): void {
  assertThrows(() => expanded(source, constants, includes), TemplateError, message);
}

Deno.test("expandTemplate() puts in constants and integer expressions", () => {
  const constants = { N: 12, TYPE: "vec4<f32>", YES: true, NO: false };
  for (
    const [source, result] of [
      ["array<$TYPE, $N>", "array<vec4<f32>, 12>"],
      ["$(N)u x$N $YES$NO", "12u x12 10"],
      ["$(N + 2 * 3)", "18"],
      ["$((N + 2) * 3)", "42"],
      ["$(N - 2 - 3)", "7"],
      ["$(N / 5) $(N % 5) $(0 - N / 5)", "2 2 -2"],
      ["$(-N + 1)", "-11"],
      ["$(N >= 12 && N < 13 || 0) $(N > 12) $(N <= 11) $(N == 12) $(N != 12)", "1 0 0 1 0"],
      ["$(!YES) $(!NO)", "0 1"],
      ["no constants here: a % b", "no constants here: a % b"],
    ]
  ) assertEquals(expanded(source!, constants), result);
});

Deno.test("expandTemplate() keeps one side of a condition, nested ones too", () => {
  const source = "a\n//#if A == f16\nb\n  //#if B\nc\n  //#else\nd\n  //#end\n//#else\ne\n//#end\nf";
  assertEquals(expanded(source, { A: "f16", B: 1 }), "a\nb\nc\nf");
  assertEquals(expanded(source, { A: "f16", B: 0 }), "a\nb\nd\nf");
  assertEquals(expanded(source, { A: "f32", B: false }), "a\ne\nf");
  // The side that is dropped is not looked at: its constants may be absent.
  assertEquals(
    expanded("//#if 0\n$X\n//#if Y\n//#end\n//#for k in 0..Z\n//#end\n//#else\nkept\n//#end"),
    "kept",
  );
});

Deno.test("expandTemplate() repeats lines, with the loop's variable in reach of inner loops and conditions", () => {
  const source = "//#for i in 0..N\n//#for j in i..2\n//#if i != j\ns$i$j\n//#end\n//#end\nend $i\n//#end";
  assertEquals(expanded(source, { N: 2 }), "s01\nend 0\nend 1");
  assertEquals(expanded("a\n//#for i in 3..3\n$i\n//#end\nb"), "a\nb");
  assertEquals(expanded("//#for i in 1..N / 2 + 1\n$(i * 8)\n//#end", { N: 5 }), "8\n16");
  refuses("//#for i in 0..2\n//#end\n$i", "line 3: unknown constant $i");
});

Deno.test("expandTemplate() refuses a broken template and names the line", () => {
  for (
    const [source, message] of [
      ["a\n$MISSING", "test.wgsl line 2: unknown constant $MISSING"],
      ["a\n//#if N\nb", "line 2: //#if is never closed"],
      ["//#for i in 0..2\nb", "line 1: //#for is never closed"],
      ["//#for i of 0..2\n//#end", 'line 1: expected "//#for NAME in A..B"'],
      ["a\n//#end", "line 2: //#end or //#else without a beginning"],
      ["//#if N\n//#else\n//#else\n//#end", "//#end or //#else without a beginning"],
      ["//#unless N\n//#end", "line 1: unknown directive //#unless"],
      ["$(N +)", 'expression "N +" ends too early'],
      ["//#if (N + 1\n//#end", 'missing ) in "(N + 1"'],
      ["//#if N 1\n//#end", 'cannot read "N 1" from "1"'],
      ["//#if N ? 1\n//#end", 'cannot read "N ? 1"'],
    ]
  ) refuses(source!, message!, { N: 1 });
});

Deno.test("expandTemplate() does not take a misspelt constant for the truth", () => {
  for (
    const use of [
      "//#if CLIPP\n//#end",
      "//#if !CLIPP\n//#end",
      "$(CLIPP + 1)",
      "//#if CLIPP && CLIP\n//#end",
    ]
  ) {
    refuses(use, '"CLIPP" is no constant', { CLIP: true });
  }
  refuses("//#if TYPE\n//#end", '"f16" is no constant, or one that is not a number', { TYPE: "f16" });
});

Deno.test("expandTemplate() includes texts, with the constants of the place and those given there", () => {
  const includes = { sum: "s += $X;\n" };
  assertEquals(
    expanded("//#for i in 0..2\n//#include sum with X = i * 2\n//#end", {}, includes),
    "s += 0;\ns += 2;",
  );
  assertEquals(expanded("//#include sum\nend", { X: "w" }, includes), "s += w;\nend");
  assertEquals(expanded("//#include sum with X = N + 1, Y = word", { N: 1 }, includes), "s += 2;");
  assertEquals(
    expanded("//#include outer", {}, { outer: "//#include sum with X = a", ...includes }),
    "s += a;",
  );
  // A constant of the place is hidden inside only.
  assertEquals(expanded("//#include sum with X = 1\n$X", { X: 5 }, includes), "s += 1;\n5");
  // The side of a condition that is dropped includes nothing.
  assertEquals(expanded("//#if 0\n//#include nowhere\n//#end\na"), "a");
  // Another text under the same name is another kernel.
  assertEquals(expanded("//#include sum", { X: 1 }, { sum: "t += $X;" }), "t += 1;");
});

Deno.test("expandTemplate() names file and line of what is wrong within an include, and where it is included", () => {
  const includes = {
    inner: "fine\n$MISSING",
    open: "//#if 1",
    end: "//#end",
    loop: "//#include loop",
    outer: "//#include inner",
  };
  for (
    const [source, message] of [
      ["a\n//#include inner", "inner.wgsl line 2, included at test.wgsl line 2: unknown constant $MISSING"],
      [
        "//#include outer",
        "inner.wgsl line 2, included at outer.wgsl line 1, included at test.wgsl line 1: unknown constant $MISSING",
      ],
      ["//#include open\n//#end", "open.wgsl line 1, included at test.wgsl line 1: //#if is never closed"],
      ["//#if 1\n//#include end", "end.wgsl line 1, included at test.wgsl line 2: //#end or //#else without"],
      ["//#include loop", "loop.wgsl line 1, included at test.wgsl line 1: loop includes itself"],
      [
        "//#include other",
        'test.wgsl line 1: the kernel was given no text "other" to include (there are: inner,',
      ],
      ["//#include inner with MISSING", 'test.wgsl line 1: expected "A = 1", not "MISSING"'],
      ["//#include inner with MISSING == 1", 'expected "A = 1"'],
      ["//#include inner MISSING = 1", 'expected "//#include NAME" or'],
      ["//#include", 'expected "//#include NAME" or'],
    ]
  ) refuses(source!, message!, {}, includes);
});
