/** The page's files, as they are sent: all of them, and what they draw with. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
// @ts-types="../../types/std_path.d.ts"
import { fromFileUrl, join, relative } from "@std/path";
import { exponentialMean } from "../../src/server/page/charts/smoothing.js";
import { contrast, differences, paletteOf } from "./page_colors.ts";
import { withService } from "./harness.ts";

const FOLDER = fromFileUrl(new URL("../../src/server/page", import.meta.url));
const TYPES: Readonly<Record<string, string>> = {
  js: "text/javascript; charset=utf-8",
  css: "text/css; charset=utf-8",
  svg: "image/svg+xml",
};

/** Where those are that are no part of a page but one. */
const PAGES: Readonly<Record<string, string>> = { "index.html": "/", "tab.html": "/tab" };

function* filesIn(folder: string): Generator<string> {
  for (const { name, isDirectory } of Deno.readDirSync(folder)) {
    if (isDirectory) yield* filesIn(join(folder, name));
    else yield join(folder, name);
  }
}

Deno.test("every file of the page is sent, and every one that it names", () =>
  withService(async ({ request }) => {
    const named = new Set<string>();
    for (const path of filesIn(FOLDER)) {
      const name = relative(FOLDER, path);
      const place = PAGES[name] ?? `/page/${name}`;
      const response = await request(place);
      const text = await response.text();
      assertEquals([response.status, text], [200, await Deno.readTextFile(path)], name);
      const type = TYPES[name.split(".").at(-1)!];
      if (type !== undefined) assertEquals(response.headers.get("Content-Type"), type, name);
      const own = new URL(place, "http://page/");
      for (const [, target] of text.matchAll(/(?:from |href=|src=)"([^"#]+)"/g)) {
        named.add(new URL(target!, own).pathname);
      }
      // The Content-Security-Policy would refuse them.
      assertEquals(text.match(/\bstyle=|<style|<script>|\bon\w+="/g) ?? [], [], name);
    }
    assert(named.size > 30, String(named.size));
    for (const path of named) assertEquals((await request(path)).status, 200, path);
  }));

Deno.test("smoothing is the exponential mean, whatever points there are", () => {
  const steps = Array.from({ length: 200 }, (_, i) => i + 1);
  const values = steps.map((step) => Math.sin(step) + step / 50);
  assertEquals(exponentialMean(steps, values, 1), values);
  const decay = 1 - 1 / 20;
  for (const [i, mean] of exponentialMean(steps, values, 20).entries()) {
    const weights = values.slice(0, i + 1).map((_, j) => decay ** (i - j));
    const sum = values.slice(0, i + 1).reduce((sum, value, j) => sum + value * weights[j]!, 0);
    assertAlmostEquals(mean!, sum / weights.reduce((a, b) => a + b), 1e-12);
  }
  // A constant stays what it is from the first value on, with gaps in steps and in values.
  assertEquals(exponentialMean([1, 2, 50, 51], [3, 3, 3, 3], 20), [3, 3, 3, 3]);
  assertEquals(exponentialMean([1, 2, 3], [3, null, 3], 20), [3, null, 3]);
  // After a long gap the past counts no more.
  assertAlmostEquals(exponentialMean([1, 2, 5000], [9, 9, 1], 20)[2]!, 1, 1e-12);
});

for (const scheme of ["light", "dark"] as const) {
  Deno.test(`colours can be read and told apart, ${scheme}`, async () => {
    const palette = paletteOf(await Deno.readTextFile(join(FOLDER, "base.css")), scheme);
    const color = (name: string) => palette.get(name)!;
    const hues = [...palette].filter(([name]) => name.startsWith("hue-")).map(([, value]) => value);
    assertEquals(hues.length, 8);
    // WCAG 2.2, 1.4.11 and 1.4.3.
    for (const hue of hues) assert(contrast(hue, color("panel")) >= 3, `${hue} on a panel`);
    for (const under of ["panel", "bg"]) {
      assert(contrast(color("edge"), color(under)) >= 3, `edge on ${under}`);
    }
    for (const text of ["ink", "muted", "accent", "good", "bad", "wait"]) {
      for (const under of ["panel", "bg"]) {
        assert(contrast(color(text), color(under)) >= 4.5, `${text} on ${under}`);
      }
    }
    assert(contrast(color("accent-ink"), color("accent")) >= 4.5);
    const close = differences([...hues, color("ink")]).filter(({ difference }) => difference < 0.1);
    assertEquals(close, []);
  });
}

Deno.test("the check of colours notices those that some cannot tell apart", () => {
  assert(differences(["#d62728", "#2ca02c"]).some(({ difference }) => difference < 0.1), "red and green");
  assert(differences(["#285ae6", "#c8780a"]).every(({ difference }) => difference > 0.2));
  assertAlmostEquals(contrast("#ffffff", "#000000"), 21, 1e-9);
  assertAlmostEquals(contrast("#767676", "#ffffff"), 4.54, 0.01);
});
