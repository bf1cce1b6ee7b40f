/** Keys of PEFT's patterns: what is taken means what it means to PEFT, and nothing that is given takes long. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { MODULE_PATTERN, patternReader } from "../../src/formats/peft/module_pattern.ts";

const PATHS = [0, 1, 10, 11].flatMap((layer) =>
  ["self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj", "mlp.xup_proj"]
    .map((name) => `model.layers.${layer}.${name}`)
).concat("lm_head");

const KEYS: readonly [key: string, fits: number][] = [
  ["q_proj", 4],
  ["proj", 0],
  ["up_proj", 4],
  ["lm_head", 1],
  ["^lm_head", 1],
  ["layers.1.self_attn.q_proj", 1],
  ["^layers.1.self_attn.q_proj", 0],
  ["^model.layers.1.self_attn.q_proj", 1],
  ["self_attn\\.q_proj", 4],
  ["(0|11).self_attn.(q_proj|k_proj)", 4],
  ["layers.1.\\w+.\\w+", 4],
  ["layers\\.\\d+\\.mlp.up_proj", 4],
  ["\\d+.up_proj", 0],
  ["^\\w+", 1],
  [".*\\.q_proj", 4],
  [".*\\.lm_head", 0],
];

Deno.test("patternReader() matches as PEFT's get_pattern_key() does", () => {
  for (const [key, count] of KEYS) {
    assert(MODULE_PATTERN.test(key), key);
    const fitting = PATHS.filter((path) => patternReader({ [key]: 7 })(path) === 7);
    assertEquals(fitting.length, count, key);
    assertEquals(PATHS.filter((path) => new RegExp(`^(.*\\.)?(${key})$`).test(path)), fitting, key);
  }
  assertEquals(patternReader({ v_proj: 1, "\\w+.q_proj": 2, q_proj: 3 })("layers.0.self_attn.q_proj"), 2);
  assertEquals(patternReader()("q_proj"), undefined);
});

Deno.test("other expressions are refused", () => {
  const refused = [
    "",
    ".",
    "^",
    "(",
    "(a",
    "(a|)",
    "(a)+",
    "(a+)+$",
    "[ab]",
    "a|b",
    "a..b",
    "a.",
    ".a",
    ".*",
  ];
  for (const key of [...refused, "a.*b", ".*q_proj", "a{9}", "a\\d", "a b", "é"]) {
    assert(!MODULE_PATTERN.test(key), key);
  }
});

Deno.test("no key takes long to refuse or to match", () => {
  const begun = performance.now();
  const path = `${"a.".repeat(100)}b`;
  for (const key of [`${"\\w+.".repeat(200)}c`, `(${"a|".repeat(400)}b)`, "a.".repeat(400) + "b"]) {
    assert(MODULE_PATTERN.test(key), key);
    for (let i = 0; i < 100; i++) patternReader({ [key]: 1 })(path);
  }
  for (
    const key of ["(a|".repeat(50_000), `${"a".repeat(200_000)}!`, "a.".repeat(50_000), "\\w+".repeat(50_000)]
  ) {
    assert(!MODULE_PATTERN.test(key));
  }
  assert(performance.now() - begun < 2000, `${performance.now() - begun} ms`);
});
