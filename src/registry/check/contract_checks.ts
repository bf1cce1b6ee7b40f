/**
 * What every plugin must be before its arithmetic is looked at: an entry of the registry with a strict schema of its options.
 *
 * @module
 */
import { z } from "zod";
import type { AnyPlugin, Kind } from "../kind.ts";
import type { Registry } from "../registry.ts";
import { CheckFailure, type Checklist } from "./checklist.ts";

const VERSION = /^\d+\.\d+\.\d+(?:[-+][0-9A-Za-z.-]+)?$/;
const UNKNOWN = "no such option of any plugin";

/** Checks id, version, contract, kind and functions against the plugins that are there already, and adds it to them. */
export function checkContract(
  plugin: AnyPlugin,
  others: readonly AnyPlugin[],
  registry: Registry<Kind>,
  list: Checklist,
): Promise<boolean> {
  return list.step("contract", () => {
    const { kind, version, contract } = plugin;
    const complaint = registry.addAll(others).complaint(plugin);
    if (complaint) throw new CheckFailure(complaint.message, complaint);
    if (typeof version !== "string" || !VERSION.test(version)) {
      throw new CheckFailure(`its version is ${JSON.stringify(version)}`, { hint: 'Write it as "1.0.0".' });
    }
    return `${kind} ${version} for contract ${contract}`;
  }, "The id must be your own, as author/name, and no other plugin's.");
}

/**
 * Checks the schema of the options and reads those given.
 *
 * @returns the options with defaults, or undefined if there are none that fit
 */
export async function checkOptions(
  plugin: AnyPlugin,
  given: Readonly<Record<string, unknown>>,
  list: Checklist,
): Promise<Record<string, unknown> | undefined> {
  let options: Record<string, unknown> | undefined;
  await list.step("options", () => {
    const schema = plugin.options;
    if (typeof schema?.safeParse !== "function") {
      throw new CheckFailure("its options are no zod schema", {
        hint: "Write options: z.strictObject({ ... }), or noOptions.",
      });
    }
    const json = z.toJSONSchema(schema, { io: "input" });
    if (json.type !== "object") {
      throw new CheckFailure(`its options are of type ${json.type}, not an object`, {
        hint: "Use z.strictObject({ ... }).",
      });
    }
    const names = Object.keys(json.properties ?? {});
    const result = schema.safeParse(given);
    if (!result.success) {
      const problems = result.error.issues.map((i) => `${i.path.join(".") || "options"}: ${i.message}`);
      throw new CheckFailure(problems.join("; "), {
        hint: `Give a default in the schema with .default(...), or a value for this check: --set ${
          result.error.issues[0]?.path.join(".") || "OPTION"
        }=VALUE`,
      });
    }
    if (schema.safeParse({ ...given, [UNKNOWN]: 1 }).success) {
      throw new CheckFailure("it takes options that it does not know, so a misspelt one would go unnoticed", {
        hint: "Use z.strictObject instead of z.object.",
      });
    }
    for (const name of plugin.scheduled ?? []) {
      if (typeof (result.data as Record<string, unknown>)[name] === "number") continue;
      throw new CheckFailure(`the scheduled option "${name}" is no number of the schema`, {
        hint: "Only numeric options with a value can be scheduled.",
      });
    }
    options = result.data;
    return names.length === 0
      ? "none"
      : names.map((n) => `${n}=${JSON.stringify(result.data[n])}`).join(", ");
  }, "Every option must have a JSON form: numbers, texts, booleans, lists and objects of them.");
  return options;
}
