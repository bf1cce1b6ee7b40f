/**
 * The reliability diagram of some models on a task: how often they are right against how sure they are.
 *
 * @module
 */
import type { Calibration } from "../../../evaluation/scores/calibration.ts";
import { axesOf, HEIGHT, pixel, WIDTH } from "./axes.ts";
import { escape } from "./chart.ts";

/** A model's calibration. */
export interface ReliabilitySeries {
  readonly name: string;
  readonly calibration: Calibration;
}

const COLOURS = 6;
const LARGEST = 9;
const SMALLEST = 1.5;

/**
 * A `figure` with its heading: a point for each bin that has something in it, as large as its share, joined by a line for each model; on the
 * dashed diagonal a model is right as often as it is sure.
 */
export function reliabilityChart(title: string, series: readonly ReliabilitySeries[]): string {
  const shown = series.filter(({ calibration }) => calibration.count > 0);
  if (shown.length === 0) return "";
  const { x, y, grid } = axesOf([[0, 0], [1, 1]], { label: (value) => value.toFixed(1), padded: true });
  const lines = shown.map(({ calibration }, i) => drawn(calibration, i, x, y)).join("");
  const legend = shown.map(({ name, calibration: { expectedError } }, i) =>
    `<svg viewBox="0 0 18 8" style="width:18px;height:8px" aria-hidden="true"><line class="line c${
      i % COLOURS
    }" x1="0" x2="18" y1="4" y2="4"/></svg> ${escape(name)}, error ${expectedError.toFixed(4)}`
  ).join(" &nbsp; ");
  return `<h2>${escape(title)}</h2>
<figure class="reliability"><svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${
    escape(title)
  }: share that is right against confidence">${grid}<path class="line dashed" style="stroke:var(--faint)" d="M${
    pixel(x(0))
  } ${pixel(y(0))}L${pixel(x(1))} ${pixel(y(1))}"/>${lines}</svg>
<figcaption class="note">${legend} &nbsp; share that is right, by confidence; a point is as large as its bin's share</figcaption></figure>`;
}

function drawn(
  { bins, count }: Calibration,
  index: number,
  x: (value: number) => number,
  y: (value: number) => number,
): string {
  const kept = bins.filter((bin) => bin.count > 0);
  const colour = `c${index % COLOURS}`;
  const place = ({ confidence, accuracy }: typeof kept[number]) =>
    [pixel(x(confidence)), pixel(y(accuracy))] as const;
  const path = kept.map((bin, i) => `${i === 0 ? "M" : "L"}${place(bin).join(" ")}`).join("");
  const circles = kept.map((bin) => {
    const [cx, cy] = place(bin);
    const radius = Math.max(SMALLEST, LARGEST * Math.sqrt(bin.count / count));
    const told = `confidence ${bin.above.toFixed(3)} to ${bin.upTo.toFixed(3)}: ${bin.count}, right ${
      (100 * bin.accuracy).toFixed(1)
    } %, sure ${(100 * bin.confidence).toFixed(1)} %`;
    return `<circle class="${colour}" cx="${cx}" cy="${cy}" r="${
      pixel(radius)
    }"><title>${told}</title></circle>`;
  }).join("");
  return `<path class="line ${colour}" d="${path}"/>${circles}`;
}
