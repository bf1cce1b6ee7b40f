/** The page's curves in a real browser: their colours, smoothing, scale, and runs side by side. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import type { Locator, Page } from "npm:playwright-core@1.60.0";
import { until } from "./harness.ts";
import { moreSteps, pageTest, submitted } from "./page_harness.ts";

/** The panel with a heading. */
function panel(page: Page, heading: string): Locator {
  return page.locator("main .panel").filter({
    has: page.getByRole("heading", { name: heading, exact: true }),
  });
}

/** Colours of the lines in a chart's legend, by their labels. */
async function colors(within: Locator): Promise<Record<string, string>> {
  await within.locator("canvas").waitFor();
  const found = await within.locator(".legend button").evaluateAll((buttons) =>
    buttons.map((button: ReturnType<typeof JSON.parse>) => [
      button.children[1].textContent,
      button.ownerDocument.defaultView.getComputedStyle(button.querySelector(".swatch")).color,
    ])
  );
  return Object.fromEntries(found);
}

/** Pixels of a chart that have exactly a colour such as `rgb(1, 2, 3)`. */
async function pixels(within: Locator, color: string): Promise<number> {
  return await within.locator("canvas").evaluate((canvas: ReturnType<typeof JSON.parse>, color) => {
    const wanted = color.match(/\d+/g)!.map(Number);
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let count = 0;
    for (let i = 0; i < data.length; i += 4) {
      if (data[i + 3] === 255 && wanted.every((value, j) => data[i + j] === value)) count++;
    }
    return count;
  }, color);
}

/** What a chart looks like. */
async function picture(within: Locator): Promise<string> {
  return await within.locator("canvas").evaluate((canvas: ReturnType<typeof JSON.parse>) =>
    canvas.toDataURL()
  );
}

/** Waits until something is so. */
async function untilSo(what: string, isSo: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + 20_000;
  while (!await isSo().catch(() => false)) {
    if (performance.now() > end) throw new Error(`not in 20 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
}

/** Waits until a chart looks different from before; returns how. */
async function changed(within: Locator, before: string): Promise<string> {
  await untilSo("the chart changes", async () => await picture(within) !== before);
  return await picture(within);
}

/** Waits until a chart looks as it did. */
function again(within: Locator, before: string): Promise<void> {
  return untilSo("the chart is as it was", async () => await picture(within) === before);
}

pageTest("the curves: a loss has one colour in every chart, of every run, light and dark", async (test) => {
  const { page, url, service } = test;
  const first = await submitted(page, url, {
    ...{ steps: 30, measures: 1.2, after: ["reverse-kl", "forward-kl"] },
    sets: ["stories", "forward-kl"],
  });
  const second = await submitted(page, url, {
    steps: 30,
    measures: 1.1,
    before: ["total-variation", "forward-kl"],
  });
  for (const id of [first, second]) await until(service, id, "succeeded");
  const losses = panel(page, "Loss, nats a token");
  const parts = panel(page, "Parts of the objective, and KL to the teacher, nats a token");
  await page.goto(`${url}#/runs/${first}`);
  const [held, own] = [await colors(losses), await colors(parts)];
  assertEquals(own["cross-entropy"], held["student, held out"]);
  assertEquals(own["cross-entropy"], held["teacher, held out"]);
  assertEquals(own["forward-kl"], own["KL to the teacher, held out"]);
  const different = [held["training objective"], own["cross-entropy"], own["forward-kl"], own["reverse-kl"]];
  assertEquals(new Set(different).size, 4, different.join());
  for (const color of Object.values(own)) assert(await pixels(parts, color!) > 20, `${color} is drawn`);
  assertEquals(await pixels(parts, "rgb(1, 2, 3)"), 0);
  // A held-out set is no loss, even where it is called like one.
  const sets = panel(page, "Held-out loss of each set, nats a token");
  const ofSets = await colors(sets);
  assertEquals(Object.keys(ofSets), ["stories", "forward-kl"]);
  assert(!Object.values(own).includes(ofSets["forward-kl"]!));
  assertEquals(await sets.locator(".legend .value").allInnerTexts(), ["1.21", "1.11"]);

  await page.goto(`${url}#/runs/${second}`);
  await parts.getByText("total-variation").waitFor();
  assertEquals(await sets.isVisible(), false);
  const other = await colors(parts);
  for (const name of ["cross-entropy", "forward-kl"]) assertEquals(other[name], own[name], name);
  assert(
    !Object.values(own).includes(other["total-variation"]!),
    "a new loss has a colour that was not given yet",
  );
  // Also next time.
  await page.reload();
  assertEquals(await colors(parts), other);

  const light = await picture(parts);
  await page.emulateMedia({ colorScheme: "dark" });
  await changed(parts, light);
  const dark = await colors(parts);
  for (const [name, color] of Object.entries(dark)) {
    assertNotEquals(color, other[name]);
    assert(await pixels(parts, color) > 20, `${name} is drawn in ${color}`);
  }
});

pageTest(
  "the curves: learning rate, gradient norm and pace; smoothed, logarithmic, and taken away",
  async (test) => {
    const { page, url, service } = test;
    const id = await submitted(page, url, { steps: 60, measures: 1.2 });
    await until(service, id, "succeeded");
    await page.goto(`${url}#/runs/${id}`);
    for (const heading of ["Learning rate", "Gradient norm", "Tokens a second"]) {
      const { [heading.toLowerCase()]: color } = await colors(panel(page, heading));
      assert(await pixels(panel(page, heading), color!) > 20, heading);
    }
    assertEquals(await panel(page, "Gradient norm").locator(".legend .value").innerText(), "1");

    const losses = panel(page, "Loss, nats a token");
    const values = () => losses.locator(".legend .value").allInnerTexts();
    const told = await values();
    assertEquals(told, ["0.05", "1.21", "1"]);
    const plain = await picture(losses);
    const slider = page.getByLabel("Smoothing");
    await slider.focus();
    for (let i = 0; i < 3; i++) await page.keyboard.press("ArrowRight");
    assertEquals(await slider.getAttribute("aria-valuetext"), "over about 20 steps");
    const smooth = await changed(losses, plain);
    const { "training objective": ink } = await colors(losses);
    assert(await pixels(losses, ink!) > 20, "the mean is drawn in full colour");
    assertEquals(await values(), told, "values are those of the run, smoothed or not");
    await page.getByLabel("Logarithmic scale").check();
    const both = await changed(losses, smooth);
    // The browser remembers how someone likes it.
    await page.reload();
    await losses.locator("canvas").waitFor();
    await again(losses, both);
    await page.getByLabel("Logarithmic scale").uncheck();
    await changed(losses, both);
    await slider.fill("0");
    await losses.locator("canvas").waitFor();
    await again(losses, plain);

    const line = losses.getByRole("button", { name: "student, held out" });
    const { "student, held out": blue } = await colors(losses);
    await line.focus();
    await page.keyboard.press("Enter");
    assertEquals(await line.getAttribute("aria-pressed"), "false");
    await changed(losses, plain);
    const without = await pixels(losses, blue!);
    await page.keyboard.press("Enter");
    await again(losses, plain);
    assert(await pixels(losses, blue!) > without + 20);
    const label = await losses.getByRole("img").getAttribute("aria-label");
    assertEquals(
      label,
      "Losses over steps, to step 60: training objective 0.05, student, held out 1.21, teacher, held out 1",
    );
  },
);

pageTest(
  "the curves: runs are chosen from the list and compared, each in a colour of its own",
  async (test) => {
    const { page, url, service } = test;
    const ids: string[] = [];
    for (const [i, name] of ["one", "two", "three"].entries()) {
      const after = i === 2 ? ["forward-kl"] : [];
      ids.push(
        await submitted(page, url, { steps: 20 + 10 * i, measures: 1.2, seed: 1 + 10 * i, name, after }),
      );
    }
    for (const id of ids) await until(service, id, "succeeded");
    await page.goto(url);
    const box = (name: string) => page.getByLabel(`Compare ${name}`, { exact: true });
    const compare = page.locator(".compare-bar a");
    await box("one").check();
    assertEquals([await compare.innerText(), await compare.getAttribute("href")], [
      "Choose another to compare",
      null,
    ]);
    await box("two").check();
    await page.getByRole("link", { name: "Compare 2 runs" }).click();
    const heldOut = panel(page, "Held-out loss, nats a token");
    const training = panel(page, "Training objective, nats a token");
    const told = await colors(heldOut);
    assertEquals(Object.keys(told), ["one", "two"]);
    assertEquals(await colors(training), told);
    assertEquals(new Set(Object.values(told)).size, 2);
    for (const color of Object.values(told)) assert(await pixels(heldOut, color) > 20, color);
    // The fake trainer's training losses are all the same: one line covers the other.
    assert(await pixels(training, told["two"]!) > 20);
    const table = page.getByRole("table");
    assertEquals(
      await table.locator("tbody tr").allInnerTexts().then((rows) => rows.map((row) => row.split(/\s+/))),
      [
        ["one", "succeeded", "20", "of", "20", "0.150", "3.000", "0.150", "1.000"],
        ["two", "succeeded", "30", "of", "30", "0.100", "3.000", "0.100", "1.000"],
      ],
    );
    assertEquals(await heldOut.locator(".legend .value").allInnerTexts(), ["1.21", "1.31"]);
    assertEquals(await page.getByText("minimise different objectives").count(), 0);

    // What is chosen changes what is shown, and nothing its colour.
    await box("one").uncheck();
    await box("three").check();
    await heldOut.getByText("three").waitFor();
    const others = await colors(heldOut);
    assertEquals([Object.keys(others), others["two"]], [["two", "three"], told["two"]]);
    await page.getByText("minimise different objectives").waitFor();
    await box("one").check();
    await heldOut.getByText("one").waitFor();
    assertEquals((await colors(heldOut))["one"], told["one"]);
    await page.reload();
    await heldOut.getByText("one").waitFor();
    assertEquals(await colors(heldOut), { ...told, ...others });
    assertEquals([await box("one").isChecked(), await box("three").isChecked()], [true, true]);
    await page.getByRole("button", { name: "Clear" }).click();
    await page.getByRole("heading", { name: "Distil a model" }).waitFor();
  },
);

pageTest("the curves: a comparison follows runs that go on, and tells what it cannot read", async (test) => {
  const { page, url } = test;
  const id = await submitted(page, url, { steps: 600, pace: 20, name: "long" });
  await page.goto(`${url}#/compare/${id},nothing`);
  await page.getByRole("alert").filter({ hasText: "nothing" }).waitFor();
  const steps = page.locator("tbody td").nth(1);
  await steps.waitFor();
  const before = await steps.innerText();
  await untilSo("steps go on", async () => await steps.innerText() !== before);
  // One that is left is read no more.
  await page.goto(`${url}#/runs/${id}`);
  await moreSteps(page, 0);
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.locator("main .state", { hasText: "cancelled" }).waitFor();
});
