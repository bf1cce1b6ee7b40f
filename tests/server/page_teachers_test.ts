/** The page's view of teachers in a real browser: which of several taught what, and what a cache of one came to. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals } from "@std/assert";
import { until } from "./harness.ts";
import { pageTest, submitted } from "./page_harness.ts";

pageTest(
  "the teachers: a table follows which of them taught what, and a finished cache tells its bytes",
  async ({ page, url, service }) => {
    const id = await submitted(page, url, { steps: 8, teachers: true });
    await until(service, id, "succeeded");
    await page.goto(`${url}#/runs/${id}`);
    const rows = page.getByRole("region", { name: "Teachers" }).locator("tbody tr");
    await rows.first().getByText("600 (96 %)").waitFor();
    const texts = (await rows.allInnerTexts()).map((row) => row.split("\t"));
    assertEquals(texts, [
      ["whole", "30", "1.500", "2.250", "600 (96 %)", "0.375"],
      ["<b>half</b>", "10", "–", "2.250", "25 (4 %)", "2.500"],
    ]);

    // One without several teachers, told as a cache that is done.
    const other = await submitted(page, url, { seed: 2 });
    await until(service, other, "succeeded");
    const run = await (await page.request.get(`${url}v1/runs/${other}`)).json();
    const cache = {
      ...{ name: "0a1b", samples: 1200, made: 1200, bytesPerToken: 258, cacheBytes: 3 * 2 ** 20 },
      heldOut: [{ name: "rows", loss: 1.25, tokens: 10 }],
    };
    const result = { seconds: 61, findings: { cache }, paths: {} };
    const json = { ...run, task: "cache", recipe: { task: "cache", recipe: run.recipe }, result };
    // Answered at once: whoever asked the service first could still be asking when the page is gone.
    await page.route(`**/v1/runs/${other}`, (route) => route.fulfill({ json }));
    await page.goto(`${url}#/runs/${other}`);
    await page.getByText("Kept of the teacher").waitFor();
    assertEquals(await page.getByRole("region", { name: "Teachers" }).count(), 0);
    // How the two stand in a line of text is for the style sheet to say.
    const [names, values] = [
      await page.locator(".numbers dt").allTextContents(),
      await page.locator(".numbers dd").allTextContents(),
    ];
    assertEquals(names.map((name, i) => [name, values[i]]).slice(1), [
      ["Took", "1:01"],
      ["Samples", "1,200"],
      ["Kept of the teacher", "3.00 MiB"],
      ["Bytes a token that counts", "258"],
      ["The teacher's loss on rows", "1.250"],
    ]);
  },
);
