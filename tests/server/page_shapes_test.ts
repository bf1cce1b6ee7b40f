/** The page's picture of shapes in a real browser: of a run that trains several, as they are measured. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertMatch } from "@std/assert";
import { pageTest, submitted } from "./page_harness.ts";

pageTest(
  "the shapes: charts of the frontier follow the run, are read by hand and by keys, and fit a phone",
  async ({ page, url }) => {
    const id = await submitted(page, url, { steps: 60, pace: 50, shaped: true, shapesEvery: 30 });
    await page.goto(`${url}#/runs/${id}`);
    const panel = (heading: string) =>
      page.locator("main .panel").filter({ has: page.getByRole("heading", { name: heading, exact: true }) });
    const size = panel("Held-out loss against parameters");
    const speed = panel("Held-out loss against tokens a second");
    await panel("Shapes after step 0").waitFor();
    const image = size.getByRole("img");
    const before = await image.getAttribute("aria-label");
    assertMatch(
      before!,
      /6 shapes; on the frontier depth=1,width=0.5: 3.100, 250 k parameters; .*width=1: 2.333/,
    );
    const circles = (kind: string) => size.locator(`circle.${kind}`).count();
    assertEquals([await circles("best"), await circles("beaten")], [4, 2]);
    assertEquals(await speed.locator("circle.best").count(), 3);
    assertEquals(await size.locator(".legend .value").allInnerTexts(), ["4", "2"]);

    // What is measured later is shown at once.
    await panel("Shapes after step 60").waitFor();
    assertMatch((await image.getAttribute("aria-label"))!, /depth=3,width=1: 2\.005, 3 M parameters/);
    const rows = await page.getByRole("region", { name: "Numbers of the shapes" }).locator("tbody tr")
      .allInnerTexts();
    assertEquals(rows.length, 6);
    const [whole] = rows.map((row) => row.split("\t"));
    assertEquals(whole, ["depth=3,width=1", "2.005", "2.333", "3 M", "333.3", "frontier", "Export"]);
    assertMatch(
      await page.locator(".log").innerText(),
      /held-out losses after step 30: depth=3,width=1 2\.011/,
    );

    const read = size.getByRole("status");
    await image.focus();
    await page.keyboard.press("ArrowRight");
    assertEquals(await read.innerText(), "depth=1,width=0.5: 2.018, 250 k parameters");
    await page.keyboard.press("End");
    assertEquals(await read.innerText(), "depth=3,width=1: 2.005, 3 M parameters");
    const [first, second] = [size.locator("circle.beaten").first(), size.locator("circle.best").nth(1)];
    await second.hover({ force: true });
    assertEquals(await read.innerText(), "depth=1,width=1: 2.016, 1 M parameters");
    const beaten = size.getByRole("button", { name: "beaten by another" });
    await beaten.press("Enter");
    assertEquals([await beaten.getAttribute("aria-pressed"), await first.count()], ["false", 0]);
    await beaten.press("Enter");

    await page.getByRole("link", { name: "Export depth=2,width=0.5" }).click();
    assertEquals(await page.getByLabel("Run", { exact: true }).inputValue(), `run:${id}`);
    assertEquals(await page.getByLabel("Shape", { exact: true }).inputValue(), "depth=2,width=0.5");
    await page.goBack();
    await panel("Shapes after step 60").waitFor();

    await page.setViewportSize({ width: 390, height: 844 });
    await size.locator("svg[width]").first().waitFor();
    const wide = await page.evaluate("document.documentElement.scrollWidth");
    assert(Number(wide) <= 390, `the page is ${wide} wide`);
    const { x, width } = (await size.locator("svg").first().boundingBox())!;
    assert(x >= 0 && x + width <= 390, `the chart goes to ${x + width}`);
    const box = (await size.locator("circle.best").last().boundingBox())!;
    assert(box.x + box.width <= 390, "the dearest shape is in sight");
  },
);
