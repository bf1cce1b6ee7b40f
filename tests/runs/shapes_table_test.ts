// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertStringIncludes } from "@std/assert";
import type { RunEvent, ShapesEvent } from "../../src/distill/run/events.ts";
import { trainedShapes } from "../../src/runs/report/run_shapes.ts";
import { shapesCharts, shapesTable } from "../../src/runs/report/shapes_table.ts";

function measured(step: number, losses: readonly (number | null)[]): RunEvent {
  const shapes: ShapesEvent["shapes"] = losses.map((loss, i) => ({
    name: `depth=${4 - i},width=1`,
    layers: Array.from({ length: 4 - i }, (_, layer) => layer),
    ...{ width: 1, parameters: 1000 * (4 - i), loss, tokensPerSecond: i === 1 ? null : 50 + i },
  }));
  return { type: "shapes", step, shapes, seq: step + 1, time: "", attempt: 1 };
}

Deno.test("a report has every shape before and after training, and the frontier", () => {
  assertEquals([shapesTable([]), shapesCharts([])], ["", []]);
  const before = measured(0, [1, 2, 3]);
  const table = shapesTable([before]);
  assertStringIncludes(table, "<td>0, 1, 2</td><td>3 k</td><td>2.000</td><td></td>");
  const both = [before, measured(8, [0.9, 1.5, null])];
  assertStringIncludes(shapesTable(both), "<td>2.000</td><td><strong>1.500</strong></td>");
  assertStringIncludes(shapesTable(both), "<td>3.000</td><td><strong>-</strong></td>");
  const charts = shapesCharts(both);
  assertEquals(charts.length, 1);
  assertStringIncludes(charts[0]!, "Held-out loss against parameters");
  assertStringIncludes(charts[0]!, "2 shapes");
});

Deno.test("what an attempt measured after the checkpoint that the next one begins from does not hold", () => {
  const rewind: RunEvent = { type: "rewind", step: 4, seq: 20, time: "", attempt: 2 };
  const [before, after] = [measured(0, [1, 2, 3]), measured(8, [0.9, 1.5, 2.5])];
  assertEquals(trainedShapes([before, after])!.step, 8);
  assertEquals(trainedShapes([before, after])!.shapes.map(({ value, before }) => [value, before]), [
    [0.9, 1],
    [1.5, 2],
    [2.5, 3],
  ]);
  const held = trainedShapes([before, after, rewind])!;
  assertEquals([held.step, held.shapes[1]!.value, held.shapes[1]!.before], [0, 2, undefined]);
  assertEquals(trainedShapes([before, { ...rewind, step: -1 }]), undefined);
  assertEquals(trainedShapes([before, after, rewind, measured(8, [0.8, 1.4, 2.4])])!.shapes[0]!.value, 0.8);
});
