/**
 * A page that is one file without scripts or links to elsewhere, light or dark as the reader's system is.
 *
 * @module
 */
import { escape } from "./charts/chart.ts";

/**
 * The page.
 *
 * @param title As text; the heading too
 * @param body HTML
 * @param options.wide Whether it is for wide tables
 */
export function htmlPage(
  title: string,
  body: readonly string[],
  { wide = false }: { readonly wide?: boolean } = {},
): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${escape(title)}</title>
<style>${STYLE}</style>
</head>
<body${wide ? ' class="wide"' : ""}>
<h1>${escape(title)}</h1>
${body.join("\n")}
</body>
</html>
`;
}

/**
 * A chart as a file of its own, such as a README shows.
 *
 * @param chart HTML with an `svg`, the first of which is taken
 */
export function standaloneSvg(chart: string): string {
  const [, attributes, inner] = /<svg([^>]*)>([\s\S]*?)<\/svg>/.exec(chart)!;
  const style = `${STYLE}svg { background: var(--paper); }`;
  return `<svg xmlns="http://www.w3.org/2000/svg"${attributes}><style>${style}</style>${inner}</svg>\n`;
}

const STYLE = `
:root { color-scheme: light dark; --ink: #1b1b1f; --paper: #ffffff; --faint: #6b6b76; --rule: #dcdce2;
  --s0: #2563c9; --s1: #c2410c; --s2: #15803d; --s3: #7e22ce; --s4: #a16207; --s5: #be185d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8ec; --paper: #17171b; --faint: #9a9aa6; --rule: #34343c;
  --s0: #7aa7f0; --s1: #f0925e; --s2: #6cc98a; --s3: #c79af2; --s4: #d8b45a; --s5: #f08bb8; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
.wide { max-width: 76rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; } th, td { text-align: left; vertical-align: top; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--rule); }
th { font-weight: 600; white-space: nowrap; } td { font-variant-numeric: tabular-nums; }
.note, .prompt { color: var(--faint); } .text { white-space: pre-wrap; overflow-wrap: anywhere; }
pre { overflow: auto; font-size: .85rem; border: 1px solid var(--rule); padding: .8rem; border-radius: .3rem; }
figure { margin: 1rem 0; } svg { width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: var(--faint); }
.grid { stroke: var(--rule); } .line { fill: none; stroke-width: 2; stroke-linejoin: round; } .dashed { stroke-dasharray: 6 5; }
.c0 { stroke: var(--s0); } .c1 { stroke: var(--s1); } .c2 { stroke: var(--s2); } .c3 { stroke: var(--s3); } .c4 { stroke: var(--s4); } .c5 { stroke: var(--s5); }
circle { fill: var(--paper); stroke-width: 2; }
circle.dominated { fill: none; stroke: var(--faint); stroke-width: 1; opacity: .5; } circle.chosen { fill: var(--s0); }
`;
