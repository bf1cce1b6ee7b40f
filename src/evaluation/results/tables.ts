/**
 * An evaluation as tables of words: for the terminal, Markdown and pages alike.
 *
 * @module
 */
import { type Evaluation, verdictOf } from "./evaluation.ts";

/** A table whose first row is its head. */
export type WordTable = readonly (readonly string[])[];

/** Every figure of every model. */
export function figureTable({ models, tasks }: Evaluation): WordTable {
  return [
    ["task", "figure", ...models],
    ...tasks.flatMap(({ name, figures }) =>
      figures.map(({ title, values }, i) => [i === 0 ? name : "", title, ...values.map(figureText)])
    ),
  ];
}

/** The figures that have one, compared with the first model; undefined where there is no other. */
export function differenceTable(
  { models: [first, ...others], tasks, bootstrap }: Evaluation,
): WordTable | undefined {
  const rows = tasks.flatMap((task) =>
    task.figures.flatMap((figure) =>
      others.flatMap((model, i) => {
        const difference = figure.differences[i + 1];
        if (!difference) return [];
        const { low, high, p } = difference;
        return [[
          ...[
            task.name,
            figure.title,
            model,
            signed(difference.difference),
            `${signed(low)} to ${signed(high)}`,
          ],
          ...[p < 0.0001 ? "< 0.0001" : p.toFixed(4), verdictOf(figure, difference)],
        ]];
      })
    )
  );
  if (rows.length === 0) return undefined;
  return [["task", "figure", `less ${first}`, "difference", `${100 * bootstrap.level} %`, "p", ""], ...rows];
}

/** What must be known to read the tables. */
export function evaluationNotes(evaluation: Evaluation): string[] {
  const { models, tasks, bootstrap } = evaluation;
  const sizes = tasks.map(({ name, items, unit }) => `${name}: ${items} ${unit}`).join("; ");
  const counts = tasks.flatMap(({ name, counts }) =>
    models.flatMap((model, i) => {
      const found = Object.entries(counts[i]!).map(([what, count]) => `${count} ${what}`);
      return found.length === 0 ? [] : [`${name}, ${model}: ${found.join(", ")}`];
    })
  );
  const ties = tasks.some(({ counts }) => counts.some((ofModel) => ofModel.ties));
  return [
    `Measured on ${sizes}.`,
    ...(counts.length > 0
      ? [`${counts.join("; ")}.${ties ? " Of tied choices the first is taken." : ""}`]
      : []),
    ...(models.length > 1
      ? [
        `Differences are over the same items; intervals and p are of a paired bootstrap with ${bootstrap.resamples} resamples of items. ` +
        `They tell how far a figure would vary with other items of the kind, not with another seed of training.`,
      ]
      : []),
  ];
}

/** Tables and notes in Markdown. */
export function evaluationMarkdown(evaluation: Evaluation): string {
  const differences = differenceTable(evaluation);
  return [
    markdownTable(figureTable(evaluation)),
    ...(differences ? [markdownTable(differences)] : []),
    evaluationNotes(evaluation).map((note) => `- ${note}\n`).join(""),
  ].join("\n");
}

/** A table in Markdown. */
export function markdownTable(table: WordTable): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const [head, ...rows] = table.map((row) =>
    row.map((cell) => cell.replaceAll("|", "\\|").replaceAll("\n", " "))
  );
  return [line(head!), line(head!.map(() => "---")), ...rows.map(line)].join("\n") + "\n";
}

/** A figure with as many digits as say something. */
export function figureText(value: number | null): string {
  if (value === null) return "-";
  // No negative zeros: what rounding makes of nothing is nothing.
  return (Math.abs(value) >= 100 ? value.toFixed(2) : value.toFixed(4)).replace(/^-(0\.0+)$/, "$1");
}

function signed(value: number): string {
  return `${value > 0 ? "+" : ""}${figureText(value)}`;
}
