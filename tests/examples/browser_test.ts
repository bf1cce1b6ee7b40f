/** The page that distils in a tab, as a folder of files. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { buildSite } from "../../examples/browser/build.ts";
import { isFile } from "../../src/formats/files.ts";

Deno.test("the site has every file that its page, its scripts and its catalogue name", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await buildSite(`${folder}/site`);
    const seen = new Set<string>();
    const follow = async (url: URL): Promise<void> => {
      if (seen.has(url.pathname)) return;
      seen.add(url.pathname);
      const path = `${folder}/site${decodeURIComponent(url.pathname)}`;
      assert(await isFile(path), `there is no ${url.pathname}`);
      if (!/\.(html|js)$/.test(path) || path.endsWith("uplot.js") || path.endsWith("worker.js")) return;
      const text = await Deno.readTextFile(path);
      for (const [, target] of text.matchAll(/(?:from |href=|src=|new URL\()"([^"#]+)"/g)) {
        await follow(new URL(target!, url));
      }
    };
    await follow(new URL("http://site/index.html"));
    assert(seen.has("/tab/worker.js") && seen.has("/page/charts/chart.js"), [...seen].join(" "));
    const { models, datasets } = JSON.parse(await Deno.readTextFile(`${folder}/site/tab/catalogue.json`));
    const named = [...models, ...datasets].flatMap(({ files }) => Object.values<string>(files));
    assertEquals(named.length, 3);
    for (const address of named) await follow(new URL(address, "http://site/tab/worker.js"));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
