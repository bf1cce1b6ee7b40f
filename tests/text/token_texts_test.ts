// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { TokenTexts } from "../../src/text/token_texts.ts";
import { sharedTest } from "../shared.ts";
import { loadTokenizer, tinyTokenizer } from "./fixtures.ts";

Deno.test("the text of a token is what it adds to a text, and of no token its id", () => {
  const texts = new TokenTexts(tinyTokenizer());
  assertEquals([3, 8, 10, 2, 11].map((id) => texts.of(id)), ["a", " ", "abc", "</s>", "token_id:11"]);
});

sharedTest(
  "texts of tokens keep the space that a word begins with, and tokens of bytes keep their spelling",
  () => {
    for (const model of ["stories15M", "minimind2-small"]) {
      const tokenizer = loadTokenizer(model);
      const texts = new TokenTexts(tokenizer);
      const ids = [...tokenizer.encode("Once upon a time, the cat sat.", { addBos: false })];
      assertEquals(ids.map((id) => texts.of(id)).join("").trimStart(), "Once upon a time, the cat sat.");
      const all = Array.from({ length: tokenizer.vocabularySize }, (_, id) => texts.of(id));
      // The replacement character is a token of some vocabularies.
      const isUnfinished = (text: string, id: number) =>
        text.includes("\ufffd") && tokenizer.tokenText(id) !== text;
      assertEquals(all.flatMap((text, id) => text === "" || isUnfinished(text, id) ? [id] : []), []);
      // Names by which tokens can be told apart are nearly all different: only few spellings give one text.
      assert(new Set(all).size > 0.99 * all.length, `${new Set(all).size} of ${all.length}`);
    }
  },
);
