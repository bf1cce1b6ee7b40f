/**
 * `compare.html`: the tables of a comparison and a picture of its differences with their intervals, in one file without scripts.
 *
 * @module
 */
import { evaluationTableHtml } from "../report/evaluation_report.ts";
import { axesOf, pixel, WIDTH } from "../report/charts/axes.ts";
import { escape } from "../report/charts/chart.ts";
import { htmlPage } from "../report/html_page.ts";
import type { ComparisonPlan } from "./comparison.ts";
import type { ComparisonSummary } from "./comparison_summary.ts";

/** The file's name. */
export const COMPARISON_PAGE = "compare.html";

/** A difference with what is known of its spread. */
interface Spread {
  readonly name: string;
  readonly difference: number;
  readonly over: readonly { readonly what: string; readonly low: number; readonly high: number }[];
}

/** The page as HTML; names that someone chose are escaped. */
export function comparisonPage(
  plan: ComparisonPlan,
  summary: ComparisonSummary,
  tables: readonly (readonly (readonly string[])[])[],
  notes: readonly string[],
): string {
  const [first] = plan.recipes as [ComparisonPlan["recipes"][number]];
  return htmlPage(
    `Comparison ${plan.id}`,
    [
      `<p class="note">${
        escape(`${
          plan.recipes.map(({ name }) => name).join(", ")
        }; seeds ${plan.seeds.join(", ")}; Limbeck ${plan.limbeck}`)
      }</p>`,
      ...tables.map((table) => `<div style="overflow-x:auto">${evaluationTableHtml(table)}</div><br>`),
      ...summary.verdicts.map(({ set, best, others }) =>
        spreadChart(
          `Loss on ${set}: ${best} less others`,
          others.flatMap(({ other, difference, overTexts, overSeeds }) =>
            difference === null ? [] : [{
              name: other,
              difference,
              over: [
                ...(overTexts ? [{ what: "texts", ...overTexts }] : []),
                ...(overSeeds ? [{ what: "seeds", ...overSeeds }] : []),
              ],
            }]
          ),
        )
      ),
      ...(summary.tasks ?? []).map(({ name, figures: [figure] }) =>
        spreadChart(
          `${name}, ${figure?.title}: others less ${first.name}`,
          (figure?.differences ?? []).flatMap(({ other, overItems, overSeeds }) =>
            overItems
              ? [{
                ...{ name: other, difference: overItems.difference },
                over: [
                  { what: "items", low: overItems.low, high: overItems.high },
                  ...(overSeeds ? [{ what: "seeds", ...overSeeds }] : []),
                ],
              }]
              : []
          ),
        )
      ),
      notes.map((note) => `<p class="note">${escape(note)}</p>`).join("\n"),
    ].filter((part) => part !== ""),
  );
}

const ROW = 44;
const LABEL = 150;

/** Differences with their intervals of 95 %, one row each, around a line at 0. */
function spreadChart(title: string, rows: readonly Spread[]): string {
  if (rows.length === 0) return "";
  const ends = rows.flatMap((
    { difference, over },
  ) => [difference, ...over.flatMap(({ low, high }) => [low, high])]);
  // The frame's own marks are of another height, so of it only the places along the bottom are taken.
  const { x } = axesOf([...ends, 0].map((end) => [end, 0]), { label: () => undefined, padded: true });
  const place = (value: number) => pixel(LABEL + (x(value) / WIDTH) * (WIDTH - LABEL));
  const height = ROW * rows.length + 30;
  const drawn = rows.map(({ name, difference, over }, i) => {
    const middle = ROW * i + ROW / 2;
    const lines = over.map(({ what, low, high }, k) => {
      const y = pixel(middle + 9 * (k - (over.length - 1) / 2));
      return `<path class="line c${k}" d="M${place(low)} ${y}L${place(high)} ${y}"><title>${
        escape(`95 % over ${what}: ${low.toFixed(4)} to ${high.toFixed(4)}`)
      }</title></path>`;
    }).join("");
    return `<text x="0" y="${pixel(middle + 4)}">${
      escape(name)
    }</text>${lines}<circle class="c0 chosen" cx="${place(difference)}" cy="${
      pixel(middle)
    }" r="3.5"><title>${difference.toFixed(4)}</title></circle>`;
  }).join("");
  const ticks = [Math.min(0, ...ends), 0, Math.max(0, ...ends)].filter((v, i, all) => all.indexOf(v) === i)
    .map((v) =>
      `<text x="${place(v)}" y="${height - 8}" text-anchor="middle">${v === 0 ? "0" : v.toFixed(3)}</text>`
    ).join("");
  const kinds = [...new Set(rows.flatMap(({ over }) => over.map(({ what }) => what)))];
  return `<h2>${escape(title)}</h2>
<figure><svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${
    escape(title)
  }"><line class="grid" x1="${place(0)}" x2="${place(0)}" y1="0" y2="${height - 22}"/>${drawn}${ticks}</svg>
<figcaption class="note">${
    kinds.map((what, k) =>
      `<svg viewBox="0 0 18 8" style="width:18px;height:8px" aria-hidden="true"><line class="line c${k}" x1="0" x2="18" y1="4" y2="4"/></svg> 95 % over ${what}`
    ).join(" &nbsp; ")
  }</figcaption></figure>`;
}
