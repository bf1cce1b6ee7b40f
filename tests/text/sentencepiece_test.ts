// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { sentencePieceFiles } from "../../src/formats/sentencepiece/tokenizer_files.ts";
import { TextTokenizer } from "../../src/text/tokenizer.ts";
import { sharedPath, sharedTest } from "../shared.ts";
import {
  charsmap,
  type Field,
  mergingModel,
  message,
  type Piece,
  probableModel,
  spmModel,
} from "./sentencepiece_file.ts";

/** A tokenizer from the bytes of a tokenizer.model. */
function tokenizerOf(
  bytes: Uint8Array,
  config: Record<string, unknown> = {},
  added: Record<string, unknown> = {},
): TextTokenizer {
  const { tokenizerJson, tokenizerConfig } = sentencePieceFiles(bytes, config, added, "tokenizer.model");
  return TextTokenizer.fromJson(tokenizerJson, tokenizerConfig, "tokenizer.model");
}

type Row = [text: string, ids: number[], decoded?: string];

function differences(tokenizer: TextTokenizer, rows: readonly Row[]) {
  return rows.flatMap(([text, ids, decoded = text]) => {
    const ours = {
      ids: [...tokenizer.encode(text)],
      decoded: ids.length > 0 ? tokenizer.decode(ids) : decoded,
    };
    return JSON.stringify(ours) === JSON.stringify({ ids, decoded }) ? [] : [{ text, ids, decoded, ours }];
  });
}

sharedTest("TextTokenizer gives SentencePiece's ids and texts for every row of the reference", async () => {
  const goldens: Record<string, { file: string; rows: Row[] }> = JSON.parse(
    await Deno.readTextFile(sharedPath("goldens/map_neo/spm.json")),
  );
  for (const [name, { file, rows }] of Object.entries(goldens)) {
    const path = name === "neo" ? file : `goldens/map_neo/${file}`;
    const tokenizer = tokenizerOf(await Deno.readFile(sharedPath(path)), { add_bos_token: false });
    assertEquals(differences(tokenizer, rows), [], name);
    assert(rows.length > 200);
  }
});

// What sentencepiece 0.2.1 gives for the two models of sentencepiece_file.ts.
Deno.test("SentencePiece merges by score after its character map, and keeps apart what someone has defined", () => {
  assertEquals(
    differences(tokenizerOf(mergingModel), [
      ["the thin", [6, 4, 15, 10]],
      ["  the\t the  ", [4, 15, 6], "th the"],
      ["", []],
      ["   ", [], ""],
      ["aaaa", [13, 8, 8]],
      ["aaaaa haa", [13, 8, 9, 13, 15, 8]],
      ["finthe", [13, 11, 14, 5]],
      ["\ufb01n \uff41a", [13, 11, 13, 8], "fin aa"],
      ["a<sep>a", [13, 17, 3, 17]],
      ["fi the", [13, 18, 19, 6]],
      ["<sep>the", [13, 3, 14, 5]],
      ["a <sep> the", [13, 17, 13, 3, 6]],
      ["<s>the</s>", [13, 0, 21, 0, 14, 5, 0, 21, 0], " \u2047 s \u2047 the \u2047 s \u2047 "],
      ["xyz a zz", [13, 0, 13, 17, 13, 0], " \u2047  a  \u2047 "],
      ["the\u00adthe", [4, 15, 14, 5], "ththe"],
      ["the\u0301", [6], "the"],
      ["\u2581the", [13, 6], "the"],
    ]),
    [],
  );
});

Deno.test("SentencePiece takes the most probable pieces, and bytes for what it does not know", () => {
  assertEquals(
    differences(tokenizerOf(probableModel), [
      ["the the", [260, 265, 260]],
      ["  the   e", [266, 260, 265, 266, 264]],
      ["th[a]e", [259, 267, 264]],
      ["qz q", [270, 265, 116]],
      ["[a", [94, 268]],
      ["\u00e9\u00e8", [269, 198, 171]],
      ["<s>", [63, 118, 65]],
      ["<0x41>a", [63, 51, 123, 55, 52, 65, 268]],
      ["\ud83d\ude42 he", [243, 162, 156, 133, 265, 261]],
      ["", []],
      ["\u2581", [265], " "],
    ]),
    [],
  );
});

Deno.test("special pieces count where they are asked for alone, each text between them with its prefix or only the first", () => {
  const tokenizer = tokenizerOf(mergingModel);
  assertEquals([...tokenizer.encode("<s>the</s>", { special: true })], [1, 6, 2]);
  assertEquals([...tokenizer.encodeParts([1, "the", 2, "he"])], [1, 6, 2, 13, 5]);
  const modern = tokenizerOf(mergingModel, { legacy: false });
  assertEquals([...modern.encodeParts(["he", 1, "the"])], [13, 5, 1, 14, 5]);
  assertEquals(tokenizer.decode([1, 6, 2]), "<s>the</s>");
  assertEquals(tokenizer.decode([1, 6, 0, 2], { skipSpecial: true }), "the \u2047 ");
  assertEquals([tokenizer.bosToken, tokenizer.eosTokens, tokenizer.vocabularySize], [1, [2], 22]);
});

Deno.test("tokens beyond the pieces come from added_tokens.json and tokenizer_config.json", () => {
  const config = {
    added_tokens_decoder: { 22: { content: "<|end|>", special: true }, 2: { content: "</s>" } },
  };
  const tokenizer = tokenizerOf(mergingModel, config, { "<|x|>": 23 });
  assertEquals([...tokenizer.encode("he<|end|>he", { special: true })], [13, 5, 22, 13, 5]);
  assert(![...tokenizer.encode("he<|end|>he")].includes(22));
  assertEquals(tokenizer.decode([5, 22, 6, 23]), "he<|end|> the<|x|>");
  const strips = tokenizerOf(mergingModel, {
    added_tokens_decoder: { 22: { content: "<|a|>", lstrip: true, rstrip: true }, 23: { content: "<|b|>" } },
  });
  // The dummy prefix is all that is left of a space.
  assertEquals([...strips.encode("he <|a|>\n he<|b|> <|b|>")], [13, 5, 22, 13, 5, 23, 23]);
  for (const added of [{ "<|x|>": 5 }, { "<|x|>": -1 }, { "": 30 }]) {
    assertThrows(() => tokenizerOf(mergingModel, {}, added), InputError, "added token");
  }
});

Deno.test("a tokenizer.model that is cut, changed or of another kind is refused", () => {
  for (const model of [mergingModel, probableModel]) {
    let refused = 0;
    for (let at = 0; at < model.length; at += at < 400 ? 1 : 41) {
      const flipped = model.slice();
      flipped[at] ^= 0x55;
      for (const bytes of [model.subarray(0, at), flipped]) {
        try {
          tokenizerOf(bytes).encode("the \ufb01\uff41 \u{1f642}");
        } catch (error) {
          if (!(error instanceof InputError)) throw error;
          refused++;
        }
      }
    }
    assert(refused > 100, `${refused}`);
  }
  const pieces: Piece[] = [["<unk>", 0, 2], ["a", -1]];
  const bad: [bytes: Uint8Array, expected: string][] = [
    [new Uint8Array(), "0 unknown pieces"],
    [new TextEncoder().encode("<html>"), "tokenizer.model"],
    [spmModel([["a", -1]], [[3, 2]]), "0 unknown pieces"],
    [spmModel([...pieces, ["b", 0, 2]], [[3, 2]]), "2 unknown pieces"],
    [spmModel([...pieces, ["a", -2]], [[3, 2]]), "occurs twice"],
    [spmModel([...pieces, ["b", NaN]], [[3, 2]]), "no finite score"],
    [spmModel([...pieces, ["b", 0, 9]], [[3, 2]]), "unknown type"],
    [spmModel(pieces, [[3, 4]]), "of the kind char"],
    [spmModel(pieces, [[3, 2], [35, true]]), "no piece for some"],
    [spmModel(pieces, [[3, "bpe"]]), "modelType is written as bytes"],
    [spmModel(pieces, [[3, 2]], [[2, charsmap({ a: "b" }).subarray(0, 100)]]), "character map is damaged"],
    [
      Uint8Array.of(...spmModel(pieces, [[3, 2]]), ...message([5, message([2, "x"])] as Field)),
      "denormalizer_spec",
    ],
    [Uint8Array.of(10, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1), "more than 64 bits"],
    [Uint8Array.of(10, 200, 1, 0), "200 bytes are announced"],
    [Uint8Array.of(11), "begins no field"],
  ];
  for (const [bytes, expected] of bad) assertThrows(() => tokenizerOf(bytes), InputError, expected);
  // Without the end of its last text, and with a leaf that points nowhere.
  const map = charsmap({ a: "b" });
  const whole = new Uint32Array(map.slice(4, -2).buffer);
  const lost = Uint8Array.of(
    ...map.subarray(0, 4),
    ...new Uint8Array(whole.map((u) => u >>> 31 ? u + 99 : u).buffer),
  );
  for (const broken of [map.subarray(0, -1), lost]) {
    const tokenizer = tokenizerOf(spmModel(pieces, [[3, 2]], [[2, broken]]));
    assertThrows(() => tokenizer.encode("a"), InputError, "character map is damaged");
  }
});
