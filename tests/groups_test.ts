// @ts-types="../types/std_assert.d.ts"
import { assertEquals, assertLess } from "@std/assert";
import { driverOptions, groupModule, groupsOf } from "./groups.ts";

Deno.test("groupsOf() gives every file to one process, and no process files of two folders", () => {
  const files = [
    ...Array.from({ length: 23 }, (_, i) => `tests/distill/${i}_test.ts`),
    ...["tests/text/a_test.ts", "tests/text/b_test.ts", "tests/own_test.ts", "tests/server/uploads_test.ts"],
  ];
  const groups = groupsOf(files, ["tests/text/b_test.ts"]);
  assertEquals(groups.flat().sort(), [...files].sort());
  for (const group of groups) {
    assertEquals(new Set(group.map((file) => file.replace(/[^/]*$/, ""))).size, 1);
    assertLess(group.length, 11);
  }
  const sizes = (folder: string) => groups.filter(([file]) => file!.includes(folder)).map((g) => g.length);
  assertEquals([sizes("distill"), sizes("server"), sizes("text")], [[7, 8, 8], [1], [1, 1]]);
  // What takes longest begins first.
  assertEquals(groups.at(-1), ["tests/text/a_test.ts"]);
});

Deno.test("groupModule() imports each file by its address", () => {
  assertEquals(
    groupModule(["tests/a b_test.ts", "tests/c_test.ts"], new URL("file:///x/")),
    'import "file:///x/tests/a%20b_test.ts";\nimport "file:///x/tests/c_test.ts";\n',
  );
});

Deno.test("driverOptions() lets kernels of operations compile sooner, and those of runs run faster", () => {
  assertEquals(driverOptions(["tests/tensor/a_test.ts", "tests/tensor/b_test.ts"]), { GALLIVM_PERF: "nopt" });
  assertEquals(driverOptions(["tests/registry/check_test.ts"]), { GALLIVM_PERF: "nopt" });
  assertEquals(driverOptions(["tests/distill/run_test.ts"]), {});
});
