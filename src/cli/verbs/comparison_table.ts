/**
 * A comparison as tables: for the terminal and as Markdown.
 *
 * @module
 */
import type { ComparisonPlan } from "../../runs/compare/comparison.ts";
import type { ComparisonSummary } from "../../runs/compare/comparison_summary.ts";
import type { PairedSummary, SampleSummary } from "../../runs/compare/paired_statistics.ts";
import { count } from "../../base/units.ts";

/** A table whose first row is its head. */
export type Table = readonly (readonly string[])[];

/** The measurements that are shown; compare.json has all of them. */
const COLUMNS: readonly [key: string, title: string][] = [
  ["cross-entropy", "held-out loss"],
  ["forward-kl", "forward KL"],
  ["reverse-kl", "reverse KL"],
  ["top-1-agreement", "top-1 agreement"],
  ["expected-calibration-error", "calibration error"],
];

/** Two tables, and what must be known to read them. */
export interface ComparisonTables {
  /** Teacher, students before training, and each recipe. */
  figures: Table;
  /** Each further recipe against the first; undefined where there is none to compare. */
  differences: Table | undefined;
  notes: string[];
}

/** Arranges what a comparison says. */
export function comparisonTables(plan: ComparisonPlan, summary: ComparisonSummary): ComparisonTables {
  const { teacher, before, recipes, differences } = summary;
  const columns = COLUMNS.filter(([key]) => recipes.some(({ metrics }) => metrics[key]));
  const titles = columns.map(([, title]) => title);
  const keys = columns.map(([key]) => key);
  const single = (name: string, values: Readonly<Record<string, number | null>>) => [
    name,
    "",
    ...keys.map((key) => number4(values[key])),
  ];
  const figures = [
    ["", "n", ...titles],
    ...(teacher ? [single("teacher", teacher)] : []),
    ...before.map(({ recipes, metrics }) =>
      single(before.length > 1 ? `student before (${recipes.join(", ")})` : "student before", metrics)
    ),
    ...recipes.map(({ recipe, n, metrics }) => [
      recipe,
      String(n),
      ...keys.map((key) => sampleText(metrics[key], n)),
    ]),
  ];
  const paired = differences.filter(({ n }) => n > 0);
  return {
    figures,
    differences: paired.length === 0 ? undefined : [
      [`less ${paired[0]!.to}`, "n", ...titles],
      ...paired.map(({ recipe, n, metrics }) => [
        recipe,
        String(n),
        ...keys.map((key) => pairedText(metrics[key], n)),
      ]),
    ],
    notes: notes(plan, summary, paired.length > 0),
  };
}

function notes(
  plan: ComparisonPlan,
  { tokens, recipes, differences }: ComparisonSummary,
  hasPairs: boolean,
): string[] {
  const spread = recipes.some(({ n }) => n > 1);
  const errors = differences.some(({ n }) => n > 1);
  const seeds = plan.seeds.length === 1 ? `seed ${plan.seeds[0]}` : `seeds ${plan.seeds.join(", ")}`;
  return [
    `n: runs that are done, of ${seeds}. ` +
    (spread ? "± is the standard deviation over them." : "One run shows no spread."),
    ...(hasPairs
      ? [
        `Differences are paired by seed${
          errors ? "; ± is the standard error of their mean" : ""
        }; 1/2: better in one of two pairs. Lower is better, but not for agreement. No significance was computed.`,
      ]
      : []),
    ...(tokens === null ? [] : [
      `In nats a token over ${
        count(tokens)
      } held-out tokens, the same for every run: the spread is that of seeds, not of texts.`,
    ]),
    ...plan.warnings.map((warning) => `Beware: ${warning}.`),
  ];
}

function sampleText(sample: SampleSummary | undefined, runs: number): string {
  if (!sample || sample.mean === null) return "-";
  const spread = sample.standardDeviation === null ? "" : ` ± ${number4(sample.standardDeviation)}`;
  return `${number4(sample.mean)}${spread}${sample.n === runs ? "" : ` (n = ${sample.n})`}`;
}

function pairedText(pair: PairedSummary | undefined, runs: number): string {
  if (!pair || pair.mean === null) return "-";
  const { n, mean, standardError, better } = pair;
  const sign = mean > 0 ? "+" : "";
  const spread = standardError === null ? "" : ` ± ${number4(standardError)}`;
  return `${sign}${number4(mean)}${spread}, ${better}/${n}${n === runs ? "" : ` (n = ${n})`}`;
}

/** Four decimals: claims are about the third. */
function number4(value: number | null | undefined): string {
  return value === null || value === undefined ? "-" : value.toFixed(4);
}

/** Columns that say what a row is: its name and n. */
const LABELS = 2;

/**
 * Lines with aligned columns. A table that is too wide comes in several, each with the rows' names and as many columns as fit.
 *
 * @param width most characters in a line; without bound when absent
 */
export function tableLines(table: Table, width = Infinity): string[][] {
  const widths = table[0]!.map((_, i) => Math.max(...table.map((row) => row[i]!.length)));
  const labels = widths.slice(0, LABELS).reduce((sum, w) => sum + w + 2, 0);
  const parts: number[][] = [];
  let room = 0;
  for (const [i, w] of widths.entries()) {
    if (i < LABELS) continue;
    room -= w + 2;
    if (room < 0 || parts.length === 0) {
      parts.push([]);
      // The last column of a line has no gap behind it.
      room = width - labels - w;
    }
    parts.at(-1)!.push(i);
  }
  return parts.map((columns) =>
    table.map((row) =>
      [0, 1, ...columns].map((column) => row[column]!.padEnd(widths[column]!)).join("  ").trimEnd()
    )
  );
}

/** The same in Markdown. */
function tableMarkdown(table: Table): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const [head, ...rows] = table.map((row) => row.map((cell) => cell.replaceAll("|", "\\|")));
  return [line(head!), line(head!.map(() => "---")), ...rows.map(line)].join("\n") + "\n";
}

/** `compare.md`: tables, how to read them, and what was compared. */
export function comparisonMarkdown(plan: ComparisonPlan, tables: ComparisonTables): string {
  const { figures, differences, notes } = tables;
  return [
    `# Comparison ${plan.id}\n`,
    tableMarkdown(figures),
    ...(differences ? [tableMarkdown(differences)] : []),
    notes.map((note) => `- ${note}\n`).join(""),
    `Limbeck ${plan.limbeck}, begun ${plan.createdAt.slice(0, 16).replace("T", " ")} UTC. ` +
    `Recipes: ${plan.recipes.map(({ name, file }) => `${name} (${file})`).join(", ")}. ` +
    "Every number of every run is in compare.json.\n",
  ].join("\n");
}
