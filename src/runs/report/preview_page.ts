/**
 * Samples as training sees them, as a page: what is learnt, what is context, and where the model is taught to stop.
 *
 * @module
 */
import type { RecipePreview } from "../../distill/run/inspect_recipe.ts";
import { packingText } from "../../distill/inputs/packing_report.ts";
import { count, percent } from "../../base/units.ts";
import type { PreviewPiece, PreviewSample } from "../../text/preview.ts";
import { escape } from "./charts/chart.ts";
import { htmlPage } from "./html_page.ts";

/** What the page has to know of tokens. */
export interface TokenKinds {
  /** Whether a token is special: it begins or ends a text or a turn. */
  isSpecial(id: number): boolean;
  /** Tokens at which generation stops. */
  readonly stopTokens: readonly number[];
}

/**
 * The page, one file without scripts or links to elsewhere.
 *
 * @param title Where the samples are from
 */
export function previewPage(title: string, preview: RecipePreview, kinds: TokenKinds): string {
  const { report, warnings, packing, samples } = preview;
  const share = report.tokens > 0 ? report.supervisedTokens / report.tokens : 0;
  return htmlPage(visible(title), [
    `<style>${STYLE}</style>`,
    `<p class="note">${
      escape(
        `${report.rows} rows, ${report.samples} samples, ${count(report.tokens)} tokens, of which ${
          percent(share)
        } are learnt; ${packingText(packing, report.samples)}.`,
      )
    }</p>`,
    '<p>Read as: <span class="t s">learnt</span> <span class="t">context</span> ' +
    '<span class="t special">special token</span> <span class="t s special stop">learnt stop</span>. ' +
    "Point at a token to see its number and place.</p>",
    ...warnings.map((warning) => `<p class="warning">${escape(visible(warning))}</p>`),
    ...samples.map((sample) => sampleHtml(sample, kinds)),
  ]);
}

function sampleHtml(
  { source, origin, pieces, supervised, privileged }: PreviewSample,
  kinds: TokenKinds,
): string {
  const stops = pieces.filter(({ id, supervised }) => supervised && kinds.stopTokens.includes(id)).length;
  const about = [
    `${source.file}:${source.line}`,
    `${pieces.length} tokens, ${supervised} learnt`,
    stops === 0
      ? "no end of a text or a turn is learnt"
      : `${stops} learnt ${stops === 1 ? "stop" : "stops"}`,
    ...(origin === undefined ? [] : [`source ${origin}`]),
    ...(privileged ? [`the teacher alone reads, after ${privileged.at} of them: ${privileged.text}`] : []),
  ];
  return `<section><h2>${escape(visible(about[0]!))}</h2><p class="note">${
    escape(visible(about.slice(1).join(", ")))
  }</p>` +
    `<p class="sample">${pieces.map((piece, i) => pieceHtml(piece, i, kinds)).join("")}</p></section>`;
}

function pieceHtml({ id, text, supervised }: PreviewPiece, place: number, kinds: TokenKinds): string {
  const classes = [
    "t",
    ...(supervised ? ["s"] : []),
    ...(kinds.isSpecial(id) ? ["special"] : []),
    ...(supervised && kinds.stopTokens.includes(id) ? ["stop"] : []),
  ];
  // A character that needs the next token too has no text of its own; line ends are shown, and kept.
  const shown = text === "" ? "\u25e6" : visible(text).replaceAll("\n", "\u21b5\n");
  return `<span class="${classes.join(" ")}" title="token ${id} at ${place}${supervised ? ", learnt" : ""}">${
    escape(shown)
  }</span>`;
}

/** Control characters, and those that turn the direction of what follows, as their numbers: else the page would not show what is there. */
function visible(text: string): string {
  return text.replace(
    /(?![\n\t])[\p{Cc}\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu,
    (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`,
  );
}

const STYLE = `
.sample { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.9; }
.t { border-radius: .2rem; padding: .1rem 0; box-shadow: inset 0 0 0 1px color-mix(in srgb, var(--faint) 18%, transparent); }
.t.s { background: color-mix(in srgb, var(--s2) 24%, transparent); }
.t.special { color: var(--s3); font-family: ui-monospace, monospace; font-size: .85em; }
.t.stop { outline: 2px solid var(--s1); }
.warning { color: var(--s1); } section { border-top: 1px solid var(--rule); }
`;
