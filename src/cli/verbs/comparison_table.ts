/**
 * A comparison as tables: for the terminal and as Markdown.
 *
 * @module
 */
import { type ComparisonPlan, setKey } from "../../runs/compare/comparison.ts";
import type { ComparisonSummary } from "../../runs/compare/comparison_summary.ts";
import type { Interval } from "../../runs/compare/intervals.ts";
import type { SetVerdict } from "../../runs/compare/verdicts.ts";
import type { PairedSummary, SampleSummary } from "../../runs/compare/paired_statistics.ts";
import { count } from "../../base/units.ts";
import { verdictOf } from "../../evaluation/results/evaluation.ts";
import { RESAMPLES } from "../../evaluation/scores/bootstrap.ts";
import type { ComparedTask } from "../../runs/compare/compared_tasks.ts";

/** A table whose first row is its head. */
export type Table = readonly (readonly string[])[];

/** The measurements that are shown; compare.json has all of them. */
const COLUMNS: readonly [key: string, title: string][] = [
  ["cross-entropy", "held-out loss"],
  ["bits-per-byte", "bits a byte"],
  ["forward-kl", "forward KL"],
  ["reverse-kl", "reverse KL"],
  ["top-1-agreement", "top-1 agreement"],
  ["expected-calibration-error", "calibration error"],
];

/** Tables, and what must be known to read them. */
export interface ComparisonTables {
  /** Teacher, students before training, each recipe, and models that are only measured. */
  figures: Table;
  /**
   * Each further recipe, and each model of which there is one for each seed, against the first recipe; undefined where there is none to
   * compare.
   */
  differences: Table | undefined;
  /** The best on each held-out set against each of the others; undefined where there is nothing to compare. */
  verdicts: Table | undefined;
  /** What all come to on tasks, and differences there; undefined where there are none. */
  tasks: Table | undefined;
  taskDifferences: Table | undefined;
  notes: string[];
}

/** Arranges what a comparison says. */
export function comparisonTables(plan: ComparisonPlan, summary: ComparisonSummary): ComparisonTables {
  const { teacher, before, recipes, differences, models = [] } = summary;
  const columns = columnsOf(summary).filter(([key]) =>
    recipes.some(({ metrics }) => metrics[key]) || models.some(({ metrics }) => metrics[key] !== undefined)
  );
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
    ...models.map(({ model, metrics, n, samples }) =>
      samples && n
        ? [model, String(n), ...keys.map((key) => sampleText(samples[key], n))]
        : single(model, metrics)
    ),
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
    verdicts: summary.verdicts.length === 0 ? undefined : verdictTable(summary.verdicts),
    tasks: taskTable(summary.tasks ?? []),
    taskDifferences: taskDifferenceTable(summary.tasks ?? [], plan.recipes[0]!.name),
    notes: notes(plan, summary, paired.length > 0),
  };
}

/** Of several sets the loss on each has a column, and what else is measured is shown of the first. */
function columnsOf({ sets = [] }: ComparisonSummary): readonly (readonly [key: string, title: string])[] {
  if (sets.length === 0) return COLUMNS;
  const [loss, ...others] = COLUMNS as readonly [typeof COLUMNS[number], ...typeof COLUMNS];
  return [
    ...sets.map((set) => [setKey(set, loss[0]), `loss, ${set}`] as const),
    ...others.map(([key, title]) => [key, `${title}, ${sets[0]}`] as const),
  ];
}

/** The best on each held-out set against each of the others. */
export function verdictTable(verdicts: readonly SetVerdict[]): Table {
  const interval = (found: Interval | null) => found ? `${signed(found.low)} to ${signed(found.high)}` : "-";
  return [
    ["held-out set", "lowest loss", "against", "difference", "95 % over texts", "p", "95 % over seeds", ""],
    ...verdicts.flatMap(({ set, best, loss, others }) =>
      others.map(({ other, difference, overTexts, p, overSeeds, wins }) => [
        set,
        `${best} ${number4(loss)}`,
        other,
        difference === null ? "-" : signed(difference),
        interval(overTexts),
        chanceText(p),
        interval(overSeeds),
        wins ? `${best} wins` : "not told apart",
      ])
    ),
  ];
}

/** A probability, which a bootstrap of so many resamples cannot tell from nothing when it is below one of them. */
function chanceText(p: number | null | undefined): string {
  if (p === null || p === undefined) return "-";
  return p < 1 / RESAMPLES ? `< ${1 / RESAMPLES}` : p.toFixed(4);
}

/** What all come to on tasks; undefined where there are none. */
function taskTable(tasks: readonly ComparedTask[]): Table | undefined {
  const names = Object.keys(tasks[0]?.figures[0]?.values ?? {});
  if (names.length === 0) return undefined;
  return [
    ["task", "figure", ...names],
    ...tasks.flatMap(({ name, figures }) =>
      figures.map(({ title, values }, i) => [
        ...[i === 0 ? name : "", title],
        ...names.map((who) => sampleText(values[who], values[who]?.n ?? 0)),
      ])
    ),
  ];
}

/** Differences on tasks to the first recipe, of the figures that decide; undefined where there are none. */
function taskDifferenceTable(tasks: readonly ComparedTask[], first: string): Table | undefined {
  const rows = tasks.flatMap(({ name, figures: [figure] }) =>
    (figure?.differences ?? []).flatMap(({ other, overItems, overSeeds }) =>
      overItems
        ? [[
          ...[name, figure!.title, other, signed(overItems.difference)],
          ...[`${signed(overItems.low)} to ${signed(overItems.high)}`, chanceText(overItems.p)],
          overSeeds ? `${signed(overSeeds.low)} to ${signed(overSeeds.high)}` : "-",
          verdictOf(figure!, overItems),
        ]]
        : []
    )
  );
  const head = [
    "task",
    "figure",
    `less ${first}`,
    "difference",
    "95 % over items",
    "p",
    "95 % over seeds",
    "over items",
  ];
  return rows.length === 0 ? undefined : [head, ...rows];
}

function signed(value: number): string {
  return `${value > 0 ? "+" : ""}${number4(value)}`;
}

/** What each of several teachers taught. */
function taughtNote(recipe: string, taught: ComparisonSummary["recipes"][number]["taught"] & object): string {
  const parts = taught.map(({ name, share, loss }) =>
    `${name} ${share === null ? "nothing" : `${Math.round(100 * share)} %`}${
      loss === null ? "" : ` (${number4(loss)})`
    }`
  );
  return `${recipe}, by teacher: ${
    parts.join(", ")
  } of the tokens, with the objective over them in the last steps.`;
}

function notes(
  plan: ComparisonPlan,
  { tokens, recipes, differences, verdicts, sets = [], tasks = [] }: ComparisonSummary,
  hasPairs: boolean,
): string[] {
  const spread = recipes.some(({ n }) => n > 1);
  const errors = differences.some(({ n }) => n > 1);
  const seeds = plan.seeds.length === 1 ? `seed ${plan.seeds[0]}` : `seeds ${plan.seeds.join(", ")}`;
  return [
    `n: runs that are done, of ${seeds}. ` +
    (spread ? "± is the standard deviation over them." : "One run shows no spread."),
    ...recipes.flatMap(({ recipe, taught }) => taught ? [taughtNote(recipe, taught)] : []),
    ...(hasPairs
      ? [
        `Differences are paired by seed${
          errors ? "; ± is the standard error of their mean" : ""
        }; 1/2: better in one of two pairs. Lower is better, but not for agreement.${
          verdicts.length === 0 ? " No significance was computed." : ""
        }`,
      ]
      : []),
    ...(tokens === null ? [] : [
      `In nats a token over ${count(tokens)} held-out tokens${
        sets.length > 0 ? ` of ${sets[0]}` : ""
      }, the same for every run: the spread is that of seeds, not of texts.`,
    ]),
    ...(verdicts.length === 0 ? [] : [verdictNote(verdicts)]),
    ...(tasks.length === 0 ? [] : [
      `Tasks: ${
        tasks.map(({ name, items, unit }) => `${name}, ${items} ${unit}`).join("; ")
      }. Differences there are over the same items, ` +
      "of each the mean over the paired runs; over items by a paired bootstrap.",
    ]),
    ...plan.warnings.map((warning) => `Beware: ${warning}.`),
  ];
}

function verdictNote(verdicts: readonly SetVerdict[]): string {
  const found = verdicts.map(({ set, best, others }) => {
    const open = others.filter(({ wins }) => !wins).map(({ other }) => other);
    return open.length === 0
      ? `${best} wins on ${set}`
      : `nothing wins on ${set}: ${best} is not told apart from ${open.join(", ")}`;
  });
  const seeds = verdicts.some(({ others }) => others.some(({ overSeeds }) => overSeeds));
  return `By paired differences, ${
    found.join("; ")
  }. A model wins where all its intervals lie below 0. Pairs over texts are sequences ` +
    `of the held-out set, p is of a paired bootstrap over them${
      seeds ? ", over seeds runs of one seed" : "; with one pair of runs, nothing is said of other seeds"
    }.`;
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
  // No negative zeros: what rounding makes of nothing is nothing.
  return value === null || value === undefined ? "-" : value.toFixed(4).replace(/^-(0\.0+)$/, "$1");
}

/** Columns that say what a row is: its name and n, or a set and who is the best on it. */
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
  const { figures, differences, verdicts, notes } = tables;
  return [
    `# Comparison ${plan.id}\n`,
    tableMarkdown(figures),
    ...(differences ? [tableMarkdown(differences)] : []),
    ...(verdicts ? [tableMarkdown(verdicts)] : []),
    ...(tables.tasks ? [tableMarkdown(tables.tasks)] : []),
    ...(tables.taskDifferences ? [tableMarkdown(tables.taskDifferences)] : []),
    notes.map((note) => `- ${note}\n`).join(""),
    `Limbeck ${plan.limbeck}, begun ${plan.createdAt.slice(0, 16).replace("T", " ")} UTC. ` +
    `Recipes: ${plan.recipes.map(({ name, file }) => `${name} (${file})`).join(", ")}. ` +
    (plan.models ? `Models: ${plan.models.map(({ name, path }) => `${name} (${path})`).join(", ")}. ` : "") +
    "Every number of every run is in compare.json.\n",
  ].join("\n");
}
