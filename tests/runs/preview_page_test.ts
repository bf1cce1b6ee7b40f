/** The page of `limbeck preview --html`: what is learnt is marked, and nothing of the data is more than text. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { main } from "../../src/cli/main.ts";
import { previewPage } from "../../src/runs/report/preview_page.ts";
import { fakeTerminal } from "../cli/fake_terminal.ts";
import { withTiny } from "../distill/tiny_model.ts";

const hostile = `<img src=x onerror="alert(1)">'&\u202e\u001b[31m`;

Deno.test("a page of samples marks what is learnt and where it ends, and escapes all of the data", () => {
  const page = previewPage(hostile, {
    samples: [{
      source: { file: `<b>.jsonl`, line: 3 },
      origin: "<i>",
      supervised: 2,
      pieces: [
        { id: 1, text: "<s>", supervised: false },
        { id: 7, text: hostile, supervised: false },
        { id: 8, text: "", supervised: false },
        { id: 9, text: "yes\n", supervised: true },
        { id: 2, text: "</s>", supervised: true },
      ],
    }],
    report: {
      ...{
        rows: 1,
        rowsByShape: { text: 1, prompt: 0, messages: 0 },
        samples: 1,
        tokens: 5,
        supervisedTokens: 2,
      },
      ...{ longest: 5, cut: 0, dropped: 0, split: 0, withoutTarget: 0, lostTargets: 0, stopsLearnt: 1 },
    },
    origins: [],
    warnings: [`"<u>"`],
    packing: {
      ...{ tokensPerMicroBatch: 8, microBatches: 1, fill: 5 / 8, cut: 0, dropped: 0, lostTargets: 0 },
      stopsLearnt: 1,
    },
  }, { isSpecial: (id) => id < 3, stopTokens: [2] });
  for (const tag of ["<img", "<b>", "<i>", "<u>", "<s>", "</s>", 'onerror="', "<script"]) {
    assert(!page.includes(tag), tag);
  }
  assert(!page.includes("\u202e") && !page.includes("\u001b"));
  assertStringIncludes(page, '<span class="t special" title="token 1 at 0">&lt;s&gt;</span>');
  assertStringIncludes(page, '<span class="t" title="token 8 at 2">\u25e6</span>');
  assertStringIncludes(page, '<span class="t s" title="token 9 at 3, learnt">yes\u21b5\n</span>');
  assertStringIncludes(page, '<span class="t s special stop" title="token 2 at 4, learnt">&lt;/s&gt;</span>');
  assertStringIncludes(page, "&lt;b&gt;.jsonl:3</h2>");
  assertStringIncludes(page, "5 tokens, 2 learnt, 1 learnt stop, source &lt;i&gt;");
  assertStringIncludes(page, "\\u{202e}\\u{1b}[31m");
  assertStringIncludes(page, "1 micro-batch of 8 tokens, 62.5 % filled, the end is learnt in 1 of 1 samples");
  // One file: nothing is fetched, nothing runs.
  assert(!/(src|href)=/.test(page.replaceAll(/src=x/g, "")));
});

Deno.test("`limbeck preview --html` writes the page of a recipe, and validate tells how its data are packed", () =>
  withTiny(async (files) => {
    const recipe = `${files.folder}/r.json`;
    await Deno.writeTextFile(
      recipe,
      JSON.stringify({
        ...{ teacher: { model: files.teacher }, student: { model: "teacher", layers: [0] } },
        data: { train: files.train, heldOut: files.heldOut, contextLength: 32 },
        train: { tokensPerMicroBatch: 64 },
      }),
    );
    const limbeck = async (...argv: string[]) => {
      const terminal = fakeTerminal();
      assertEquals(await main(argv, terminal), 0, terminal.err);
      return terminal.out;
    };
    const page = `${files.folder}/page.html`;
    assertStringIncludes(
      await limbeck("preview", recipe, "--samples", "5", "--html", page),
      `Samples are in ${page}`,
    );
    const html = await Deno.readTextFile(page);
    assertEquals(html.match(/<section>/g)!.length, 5);
    assertStringIncludes(html, 'class="t s special stop"');
    assertStringIncludes(await limbeck("validate", recipe), " micro-batches of 64 tokens, ");
    const { packing, looked } = JSON.parse(await limbeck("validate", recipe, "--json"));
    assert(packing.fill > 0.5 && packing.fill <= 1 && packing.microBatches > 3, JSON.stringify(packing));
    assertEquals(looked, undefined);
  }));
