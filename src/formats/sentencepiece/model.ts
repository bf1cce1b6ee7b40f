/**
 * `tokenizer.model`: a SentencePiece model (https://github.com/google/sentencepiece, sentencepiece_model.proto), of which only what
 * decides ids and texts is read.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { type FieldType, readMessage, wireFields } from "./protobuf.ts";

/** `SentencePiece.Type` */
export const pieceType = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** A SentencePiece model, as JSON can hold it. Pieces, scores and types are by id. */
export interface SentencePieceModel {
  readonly type: "bpe" | "unigram";
  readonly pieces: readonly string[];
  readonly scores: readonly number[];
  readonly types: readonly number[];
  readonly byteFallback: boolean;
  readonly unknownSurface: string;
  readonly normalizer: {
    /** In base64. */
    readonly charsmap: string;
    readonly addDummyPrefix: boolean;
    readonly removeExtraWhitespaces: boolean;
    readonly escapeWhitespaces: boolean;
    readonly whitespaceAsSuffix: boolean;
  };
}

/** What its trainer was told of special pieces; -1 for none. */
export interface SentencePieceIds {
  readonly bos: number;
  readonly eos: number;
  readonly pad: number;
}

type Fields = Readonly<Record<number, readonly [name: string, type: FieldType]>>;

const PIECE: Fields = { 1: ["piece", "text"], 2: ["score", "float"], 3: ["type", "int"] };

const TRAINER: Fields = {
  3: ["modelType", "int"],
  24: ["whitespaceAsSuffix", "bool"],
  35: ["byteFallback", "bool"],
  41: ["bos", "int"],
  42: ["eos", "int"],
  43: ["pad", "int"],
  44: ["unknownSurface", "text"],
};

const NORMALIZER: Fields = {
  2: ["charsmap", "bytes"],
  3: ["addDummyPrefix", "bool"],
  4: ["removeExtraWhitespaces", "bool"],
  5: ["escapeWhitespaces", "bool"],
};

/** Messages of a `ModelProto` by field. */
const [PIECES, TRAINER_SPEC, NORMALIZER_SPEC, DENORMALIZER_SPEC] = [1, 2, 3, 5];

/** More than any vocabulary has; refused before memory is spent on it. */
const MOST_PIECES = 1 << 21;
const MOST_BYTES = 1 << 28;

/**
 * Reads a model.
 *
 * @throws {InputError} for what is no such model, a kind that is not BPE or unigram, a denormaliser, and pieces that contradict each other
 */
export function readSentencePiece(
  bytes: Uint8Array,
  where: string,
): { model: SentencePieceModel; ids: SentencePieceIds } {
  if (bytes.length > MOST_BYTES) {
    throw new InputError(`has ${bytes.length} bytes, where a SentencePiece model has at most ${MOST_BYTES}`, {
      where,
    });
  }
  const pieces: string[] = [];
  const scores: number[] = [];
  const types: number[] = [];
  let trainer: Record<string, unknown> = {};
  let normalizer: Record<string, unknown> = {};
  for (const { field, kind, value } of wireFields(bytes, where)) {
    if (![PIECES, TRAINER_SPEC, NORMALIZER_SPEC, DENORMALIZER_SPEC].includes(field)) continue;
    if (kind !== "bytes") throw new InputError(`field ${field} is no message`, { where });
    if (field === PIECES) {
      if (pieces.length === MOST_PIECES) {
        throw new InputError(`has more than ${MOST_PIECES} pieces`, { where });
      }
      const at = `${where}: piece ${pieces.length}`;
      const { piece = "", score = 0, type = pieceType.normal } = readMessage(value, PIECE, at);
      if (piece === "" || !Number.isFinite(score) || (type as number) < 1 || (type as number) > 6) {
        throw new InputError("is empty, has no finite score or is of an unknown type", { where: at });
      }
      pieces.push(piece as string);
      scores.push(score as number);
      types.push(type as number);
    } else if (field === TRAINER_SPEC) {
      trainer = { ...trainer, ...readMessage(value, TRAINER, `${where}: trainer_spec`) };
    } else if (field === NORMALIZER_SPEC) {
      normalizer = { ...normalizer, ...readMessage(value, NORMALIZER, `${where}: normalizer_spec`) };
    } else if ("charsmap" in readMessage(value, NORMALIZER, `${where}: denormalizer_spec`)) {
      throw new InputError("it rewrites texts when it decodes (denormalizer_spec), which is not supported", {
        where,
      });
    }
  }
  checkPieces(pieces, types, where);
  const { modelType = 1, byteFallback = false, unknownSurface = " \u2047 " } = trainer;
  const {
    charsmap = new Uint8Array(),
    addDummyPrefix = true,
    removeExtraWhitespaces = true,
    escapeWhitespaces = true,
  } = normalizer;
  return {
    model: {
      type: typeOf(modelType as number, where),
      pieces,
      scores,
      types,
      byteFallback: byteFallback as boolean,
      unknownSurface: unknownSurface as string,
      normalizer: {
        charsmap: (charsmap as Uint8Array).toBase64(),
        addDummyPrefix: addDummyPrefix as boolean,
        removeExtraWhitespaces: removeExtraWhitespaces as boolean,
        escapeWhitespaces: escapeWhitespaces as boolean,
        whitespaceAsSuffix: (trainer.whitespaceAsSuffix ?? false) as boolean,
      },
    },
    ids: idsOf(trainer, types),
  };
}

function typeOf(modelType: number, where: string): "bpe" | "unigram" {
  if (modelType === 1) return "unigram";
  if (modelType === 2) return "bpe";
  const name = { 3: "word", 4: "char" }[modelType] ?? `number ${modelType}`;
  throw new InputError(`it is a SentencePiece model of the kind ${name}, which is not supported`, {
    where,
    hint: "Supported: bpe, unigram. Put the model's tokenizer.json beside it, if there is one.",
  });
}

function checkPieces(pieces: readonly string[], types: readonly number[], where: string): void {
  const unknown = types.filter((type) => type === pieceType.unknown).length;
  if (unknown !== 1) {
    throw new InputError(`it has ${unknown} unknown pieces among ${pieces.length}, where one is right`, {
      where,
      hint: "The file is damaged, cut short or not a SentencePiece model; fetch it again.",
    });
  }
  const seen = new Set<string>();
  for (const piece of pieces) {
    if (seen.has(piece)) throw new InputError(`the piece ${JSON.stringify(piece)} occurs twice`, { where });
    seen.add(piece);
  }
}

/** As SentencePiece has them: an id that is no control piece is none. */
function idsOf(trainer: Record<string, unknown>, types: readonly number[]): SentencePieceIds {
  const control = (id: unknown, usual: number) => {
    const found = (id ?? usual) as number;
    return types[found] === pieceType.control ? found : -1;
  };
  return { bos: control(trainer.bos, 1), eos: control(trainer.eos, 2), pad: control(trainer.pad, -1) };
}
