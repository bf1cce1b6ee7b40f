/**
 * JSON for readers in Python, where 8 and 8.0 are of different types.
 *
 * @module
 */

/**
 * Two-space JSON with a final line break, in which the numbers under the given keys have a decimal point.
 *
 * @example
 * ```ts
 * pythonJson({ factor: 8, layers: 2 }, ["factor"]); // '{\n  "factor": 8.0,\n  "layers": 2\n}\n'
 * ```
 */
export function pythonJson(value: unknown, floatKeys: readonly string[]): string {
  // Within a string the quote before the colon would be escaped, so only keys match.
  const whole = new RegExp(`("(?:${floatKeys.join("|")})": -?\\d+)(?=,?\\n)`, "g");
  return JSON.stringify(value, null, 2).replace(whole, "$1.0") + "\n";
}
