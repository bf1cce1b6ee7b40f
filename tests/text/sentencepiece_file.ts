/** Small tokenizer.model files, written field by field as sentencepiece_model.proto numbers them. */

const utf8 = new TextEncoder();

/** A field of a message: numbers are varints, floats are marked. */
export type Field = [number: number, value: number | boolean | string | Uint8Array | { float: number }];

/** The bytes of a message. */
export function message(...fields: Field[]): Uint8Array {
  return Uint8Array.from(fields.flatMap(([number, value]): number[] => {
    if (typeof value === "string") value = utf8.encode(value);
    if (value instanceof Uint8Array) return [...varint(number * 8 + 2), ...varint(value.length), ...value];
    if (typeof value === "object") {
      return [...varint(number * 8 + 5), ...new Uint8Array(Float32Array.of(value.float).buffer)];
    }
    return [...varint(number * 8), ...varint(Number(value))];
  }));
}

function varint(value: number): number[] {
  return value < 128 ? [value] : [value % 128 + 128, ...varint(Math.floor(value / 128))];
}

/** A piece with its score and type; a normal one where no type is given. */
export type Piece = [piece: string, score?: number, type?: number];

/** A model of pieces, with fields of `trainer_spec` and `normalizer_spec`. */
export function spmModel(pieces: readonly Piece[], trainer: Field[], normalizer: Field[] = []): Uint8Array {
  const own = pieces.map(([piece, score = 0, type]): Field => [
    1,
    message([1, piece], [2, { float: score }], ...(type === undefined ? [] : [[3, type] as Field])),
  ]);
  return message(...own, [2, message(...trainer)], [3, message(...normalizer)]);
}

/** The 256 byte pieces. */
export function bytePieces(): Piece[] {
  return Array.from(
    { length: 256 },
    (_, byte) => [`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`, 0, 6],
  );
}

interface Node {
  children: Map<number, Node>;
  value?: number;
}

/** A `precompiled_charsmap`: a double-array trie as darts-clone lays it out, every node at the first place that is free. */
export function charsmap(entries: Readonly<Record<string, string>>): Uint8Array {
  const root: Node = { children: new Map() };
  const texts: number[] = [];
  for (const [from, to] of Object.entries(entries)) {
    let node = root;
    for (const byte of utf8.encode(from)) {
      const next: Node = node.children.get(byte) ?? { children: new Map() };
      node.children.set(byte, next);
      node = next;
    }
    node.value = texts.length;
    texts.push(...utf8.encode(to), 0);
  }
  const units = new Map<number, number>([[0, 0]]);
  const place = (at: number, { children, value }: Node): void => {
    const labels = [...(value === undefined ? [] : [0]), ...children.keys()];
    let base = 1;
    while (labels.some((label) => units.has(base ^ label))) base++;
    units.set(at, (units.get(at)! | (at ^ base) << 10 | (value === undefined ? 0 : 0x100)) >>> 0);
    for (const label of labels) units.set(base ^ label, label);
    if (value !== undefined) units.set(base, (value | 0x80000000) >>> 0);
    for (const [label, child] of children) place(base ^ label, child);
  };
  place(0, root);
  // In whole pages, as SentencePiece's own reader wants it.
  const trie = new Uint32Array(Math.ceil((Math.max(...units.keys()) + 1) / 256) * 256);
  for (const [at, unit] of units) trie[at] = unit;
  const bytes = new Uint8Array(trie.buffer);
  return Uint8Array.of(...new Uint8Array(Uint32Array.of(bytes.length).buffer), ...bytes, ...texts);
}

const SPACE = "\u2581";

/** BPE with a character map, extra spaces removed; among its pieces one that someone has defined, one that is not used, and equal scores. */
export const mergingModel: Uint8Array = spmModel(
  [
    ["<unk>", 0, 2],
    ["<s>", 0, 3],
    ["</s>", 0, 3],
    ["<sep>", 0, 4],
    [`${SPACE}t`, -1],
    ["he", -2],
    [`${SPACE}the`, -3],
    ["fi", -4, 5],
    ["aa", -5],
    ["aaa", -6],
    ["in", -7],
    ["fin", -8],
    // What someone has defined joins with nothing, so this is never made.
    ["a<sep>", 0],
    ...[..."\u2581theafins"].map((character, i): Piece => [character, -20 - i]),
  ],
  [[3, 2], [40, 0], [41, 1], [42, 2]],
  [[1, "own"], [2, charsmap({ "\ufb01": "fi", "\uff41": "a", "\t": " ", "\u00ad": "", "e\u0301": "e" })]],
);

/** Unigram with bytes for what it does not know, nothing put before a text and spaces kept. */
export const probableModel: Uint8Array = spmModel(
  [
    ["<unk>", 0, 2],
    ["<s>", 0, 3],
    ["</s>", 0, 3],
    ...bytePieces(),
    ["th", -2],
    ["the", -3.5],
    ["he", -2.25],
    ["t", -3],
    ["h", -4],
    ["e", -2.5],
    [SPACE, -1.5],
    [`${SPACE}${SPACE}`, -2],
    ["[a]", -50, 4],
    ["a", -5],
    ["\u00e9", -6],
    // Two that would lose to an unknown character and the other, did unknown ones cost no more than the rarest piece.
    ["qz", -6],
    ["z", 1],
  ],
  [[3, 1], [35, true], [40, 0], [41, 1], [42, 2]],
  [[1, "identity"], [3, false], [4, false]],
);

/** BPE as Llama's: spaces as they are, bytes for what it does not know. */
export const llamaModel: Uint8Array = spmModel(
  [
    ["<unk>", 0, 2],
    ["<s>", 0, 3],
    ["</s>", 0, 3],
    ...bytePieces(),
    [`${SPACE}t`, 0],
    ["he", -1],
    [`${SPACE}the`, -2],
    ["aa", -3],
    ["aaa", -4],
    ...[..."\u2581thea"].map((character, i): Piece => [character, -5 - i]),
  ],
  [[3, 2], [35, true], [40, 0], [41, 1], [42, 2]],
  [[1, "identity"], [4, false]],
);
