/**
 * What a row kernel writes of its losses' values, and how a row that went wrong shows: as NaN, never as a number that looks like a
 * result.
 *
 * @module
 */
import type { RowScope } from "./scope.ts";

/** NaN. The sum keeps compilers from folding it. */
const NAN = "bitcast<f32>(0x7fc00000u + (size.rows & 0u))";

/** `poison`: 0, or what makes the row NaN. A label outside the vocabulary does, so that it is seen. */
export function startPoison({ traced }: RowScope): string[] {
  const beforeFirst = traced.tokenMasks ? "(label < 0 && label != -100)" : "label < 0";
  return [
    "var poison = 0.0;",
    `if (${beforeFirst} || label >= i32(size.vocabulary)) { poison = ${NAN}; }`,
  ];
}

/** In a broken row every weight is NaN, and with it every gradient: one addition a row instead of one for each entry. */
export function breakWeights(scope: RowScope): string[] {
  if (!scope.gradient) return [];
  return scope.terms.flatMap((term) => term.monitor ? [] : [`${scope.weight(term)} += poison;`]);
}

/**
 * Mesa's software driver ends all loops of a thread after 65,535 turns together, without a word, and what a row loss of many turns leaves
 * then would pass for a result. So values are NaN from the first, and written only where loops still run.
 */
function mayRunOut({ family, traced }: RowScope): boolean {
  return family === "subgroup8" && traced.rowLosses.length > 0;
}

/** Before anything that takes turns: the values of a row that is not finished. */
export function unfinishedValues(scope: RowScope): string[] {
  return mayRunOut(scope) ? write(scope, () => NAN) : [];
}

/** The values, once statistics and row losses are there. */
export function writeValues(scope: RowScope): string[] {
  const { terms, traced: { values, rowLosses } } = scope;
  const { uniform, results } = scope.printed([...values.values()], (name) => ({ code: name, width: 1 }));
  const codes = new Map([...values.keys()].map((index, i) => [index, results[i]!.code]));
  for (const { index } of rowLosses) codes.set(index, `rowLoss${index}`);
  const lines = write(
    scope,
    (index) => scope.whereCounted(terms[index]!, `${codes.get(index)} + poison`, "0.0"),
  );
  if (!mayRunOut(scope)) return [...uniform, ...lines];
  return [
    ...uniform,
    "// A loop that has its second turn tells that no loop before it was ended: else the values stay NaN. Its bound depends on the row:",
    "// where one is plainly a uniform, the driver compiles a long kernel again at every launch.",
    "for (var turn = 0u; turn < 1u + min(size.rows - row, 1u); turn++) {",
    "  if (turn == 1u) {",
    ...lines.map((line) => `    ${line}`),
    "  }",
    "}",
  ];
}

function write({ traced }: RowScope, value: (index: number) => string): string[] {
  const indices = [...traced.values.keys(), ...traced.rowLosses.map(({ index }) => index)];
  return [
    "if (lane == 0u) {",
    ...indices.map((index) => `  row_values[${index}u * size.value_stride + row] = ${value(index)};`),
    "}",
  ];
}
