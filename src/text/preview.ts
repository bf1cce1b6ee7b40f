/**
 * What training will see of a dataset: samples with their targets marked, counts, and what looks wrong.
 *
 * @module
 */
import type { DatasetRow, RowSource } from "./dataset.ts";
import { encodeDataset, type EncodedSample, type EncodeOptions, type EncodeReport } from "./encode.ts";
import { TextStream } from "./text_stream.ts";
import type { TextTokenizer } from "./tokenizer.ts";

/** One token of a sample. The texts of all tokens joined are the text of the sample. */
export interface PreviewPiece {
  id: number;
  /** Empty where a character needs the next token too. */
  text: string;
  supervised: boolean;
}

/** One sample, token by token. */
export interface PreviewSample {
  source: RowSource;
  /** Who wrote it, where its row says so. */
  origin?: string;
  pieces: PreviewPiece[];
  /** Count of targets. */
  supervised: number;
  /** What the teacher alone reads, after so many of the tokens; where it is told more than the student. */
  privileged?: { at: number; text: string };
}

/** What {@linkcode previewDataset} finds. */
export interface Preview {
  samples: PreviewSample[];
  /** Counts over the whole dataset, not only the samples shown. */
  report: EncodeReport;
  /** Samples by who wrote them, most first; of those whose rows say so. */
  origins: { origin: string; samples: number }[];
  warnings: string[];
}

/**
 * Encodes a dataset as training would and takes the first samples apart.
 *
 * @param count samples to show
 * @param encoded what the rows were encoded to, if they have been
 * @throws {InputError} what encoding throws
 */
export function previewDataset(
  rows: readonly DatasetRow[],
  options: EncodeOptions,
  count = 3,
  encoded?: { samples: readonly EncodedSample[]; report: EncodeReport },
): Preview {
  const { samples, report } = encoded ?? encodeDataset(rows, options);
  return {
    samples: samples.slice(0, count).map((sample) => previewSample(sample, options.tokenizer)),
    report,
    origins: countOrigins(samples),
    warnings: [
      ...writtenOutSpecials(rows, options),
      ...missingBos(rows, samples, options),
      ...unknownTokens(samples, options.tokenizer),
    ],
  };
}

function countOrigins(samples: readonly EncodedSample[]): Preview["origins"] {
  const counts = new Map<string, number>();
  for (const { origin } of samples) {
    if (origin !== undefined) counts.set(origin, (counts.get(origin) ?? 0) + 1);
  }
  return [...counts].sort((a, b) => b[1] - a[1]).map(([origin, count]) => ({ origin, samples: count }));
}

/** A sample as pieces of text, one for each token. */
export function previewSample(sample: EncodedSample, tokenizer: TextTokenizer): PreviewSample {
  const stream = new TextStream(tokenizer, { skipSpecial: false });
  const pieces = Array.from(sample.ids, (id, i) => {
    const last = i === sample.ids.length - 1;
    const text = stream.push(id) + (last ? stream.end() : "");
    return { id, text, supervised: sample.supervised[i] === 1 };
  });
  return {
    source: sample.source,
    ...(sample.origin === undefined ? {} : { origin: sample.origin }),
    pieces,
    supervised: pieces.filter((piece) => piece.supervised).length,
    ...(sample.privileged
      ? { privileged: { at: sample.privileged.at, text: tokenizer.decode(sample.privileged.ids) } }
      : {}),
  };
}

const SHAPE_NAMES: Readonly<Record<string, string>> = {
  prompt: "prompt/completion",
  pair: "prompt/chosen/rejected",
};

const place = ({ file, line }: RowSource) => `${file}:${line}`;

function rowTexts(row: DatasetRow): string[] {
  if (row.shape === "text") return [row.text];
  if (row.shape === "prompt") return [row.prompt, row.completion];
  if (row.shape === "pair") return [row.prompt, row.chosen, row.rejected];
  return row.messages.map((message) => message.content);
}

function writtenOutSpecials(rows: readonly DatasetRow[], options: EncodeOptions): string[] {
  const found = new Map<string, { rows: number; first: RowSource }>();
  for (const row of rows) {
    for (const token of new Set(rowTexts(row).flatMap((text) => options.tokenizer.findSpecial(text)))) {
      const entry = found.get(token) ?? { rows: 0, first: row.source };
      found.set(token, { ...entry, rows: entry.rows + 1 });
    }
  }
  const meaning = options.specialInText
    ? "outside of messages it becomes the control token"
    : "it is kept as plain text, not as the control token";
  return [...found].map(([token, { rows, first }]) =>
    `${rows === 1 ? "1 row contains" : `${rows} rows contain`} the special token ${JSON.stringify(token)} ` +
    `written out (first: ${place(first)}); ${meaning}`
  );
}

/** Conversations get no BOS beside the template's; a tokenizer that puts one before every text suggests that the model expects one. */
function missingBos(
  rows: readonly DatasetRow[],
  samples: readonly EncodedSample[],
  options: EncodeOptions,
): string[] {
  const { bosPolicy: { prefix }, bosToken } = options.tokenizer;
  const chat = rows.some((row) =>
    row.shape === "messages" || (row.shape === "prompt" && options.promptsAsChat)
  );
  if (!chat || prefix.length === 0 || options.tooLong === "split") return [];
  const without = samples.filter((sample) => sample.ids[0] !== prefix[0]);
  if (without.length === 0) return [];
  return [
    `${without.length} of ${samples.length} samples do not begin with the BOS token ${bosToken} that the tokenizer puts before a text ` +
    `(first: ${place(without[0].source)}); the chat template does not write it`,
  ];
}

function unknownTokens(samples: readonly EncodedSample[], tokenizer: TextTokenizer): string[] {
  const unknown = tokenizer.unknownToken;
  // Some tokenizers name an ordinary or an end token as the unknown one and never need it.
  if (unknown === undefined || tokenizer.eosTokens.includes(unknown)) return [];
  let count = 0;
  let first: RowSource | undefined;
  for (const { ids, source } of samples) {
    for (const id of ids) {
      if (id !== unknown) continue;
      count++;
      first ??= source;
    }
  }
  if (first === undefined) return [];
  const tokens = count === 1 ? "1 token is" : `${count} tokens are`;
  return [
    `${tokens} unknown to the vocabulary (first: ${place(first)}); is this the right tokenizer for the data?`,
  ];
}

/** Control characters would reach the terminal as commands; line ends and tabs may stay. */
function printable(text: string): string {
  return text.replace(
    /(?![\n\t])\p{Cc}/gu,
    (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`,
  );
}

/**
 * A preview as text for people.
 *
 * @param options.color mark targets in green instead of with `[[...]]`
 */
export function renderPreview(preview: Preview, options: { color?: boolean } = {}): string {
  const [open, close] = options.color ? ["\x1b[32m", "\x1b[39m"] : ["[[", "]]"];
  const samples = preview.samples.map(({ source, origin, pieces, supervised, privileged }) => {
    let text = "";
    pieces.forEach((piece, i) => {
      if (piece.supervised && !pieces[i - 1]?.supervised) text += open;
      text += printable(piece.text);
      if (piece.supervised && !pieces[i + 1]?.supervised) text += close;
    });
    const by = origin === undefined ? "" : `, source ${printable(origin)}`;
    const told = privileged
      ? `the teacher alone reads, after ${privileged.at} of them: ${printable(privileged.text)}\n`
      : "";
    return `${place(source)}: ${pieces.length} tokens, ${supervised} supervised${by}\n${told}${text}\n`;
  });
  return [
    ...samples,
    renderReport(preview.report),
    ...renderOrigins(preview),
    ...preview.warnings.map((w) => `warning: ${w}`),
  ].join(
    "\n",
  ) + "\n";
}

/** Sources that are named; there may be as many as rows. */
const SHOWN_ORIGINS = 8;

function renderOrigins({ origins }: Preview): string[] {
  if (origins.length === 0) return [];
  const shown = origins.slice(0, SHOWN_ORIGINS).map((o) => `${o.samples} ${printable(o.origin)}`);
  const more = origins.length > shown.length ? `, and ${origins.length - shown.length} more` : "";
  return [`samples by source: ${shown.join(", ")}${more}`];
}

function renderReport(report: EncodeReport): string {
  const { tokens, supervisedTokens, rowsByShape } = report;
  const shapes = Object.entries(rowsByShape).filter(([, count]) => count > 0)
    .map(([shape, count]) => `${count} ${SHAPE_NAMES[shape] ?? shape}`).join(", ");
  const share = tokens > 0 ? (100 * supervisedTokens / tokens).toFixed(1) : "0.0";
  return [
    `rows: ${report.rows} (${shapes})`,
    `samples: ${report.samples}, longest row ${report.longest} tokens`,
    `tokens: ${tokens}, of them ${supervisedTokens} supervised (${share} %)`,
    `too long: ${report.cut} cut, ${report.dropped} dropped, ${report.split} split; without a target: ${report.withoutTarget}`,
  ].join("\n");
}
