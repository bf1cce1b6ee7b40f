/**
 * What every plugin must be before its arithmetic is looked at: an entry of the registry with a strict schema of its options.
 *
 * @module
 */
import { z } from "zod";
import type { Plugin } from "../contract.ts";
import { CONTRACT_VERSION } from "../../base/plugin.ts";
import { Registry } from "../registry.ts";
import { CheckFailure, type Checklist } from "./checklist.ts";

const KINDS = ["divergence", "row-loss", "feature-loss", "adapter"];
const VERSION = /^\d+\.\d+\.\d+(?:[-+][0-9A-Za-z.-]+)?$/;
const UNKNOWN = "no such option of any plugin";

/** Functions without which a plugin of a kind cannot work. */
const FUNCTIONS: Readonly<Record<string, readonly string[]>> = {
  "divergence": [],
  "row-loss": ["wgsl", "reference"],
  "feature-loss": ["taps", "program"],
  "adapter": ["parameters", "forward"],
};

/** Checks id, version, contract, kind and functions against the plugins that are there already. */
export function checkContract(plugin: Plugin, others: readonly Plugin[], list: Checklist): Promise<boolean> {
  return list.step("contract", () => {
    const fields = plugin as unknown as Record<string, unknown>;
    if (!KINDS.includes(String(plugin.kind))) {
      throw new CheckFailure(`its kind is ${JSON.stringify(plugin.kind)}`, {
        hint: "Make it with defineDivergence, defineLoss, defineFeatureLoss or defineAdapter.",
      });
    }
    if (typeof plugin.id !== "string") {
      throw new CheckFailure("it has no id", { hint: 'Give it one: id: "author/name".' });
    }
    if (plugin.contract !== CONTRACT_VERSION) {
      throw new CheckFailure(
        `it was written for contract ${plugin.contract}; this Limbeck speaks ${CONTRACT_VERSION}`,
        { hint: "Write contract: CONTRACT_VERSION, and see in the change log what a new contract asks for." },
      );
    }
    if (typeof plugin.version !== "string" || !VERSION.test(plugin.version)) {
      throw new CheckFailure(`its version is ${JSON.stringify(plugin.version)}`, {
        hint: 'Write it as "1.0.0".',
      });
    }
    for (const name of FUNCTIONS[plugin.kind]!) {
      if (typeof fields[name] === "function") continue;
      throw new CheckFailure(`${name}() is missing`, {
        hint: `A ${plugin.kind} needs ${FUNCTIONS[plugin.kind]!.join("(), ")}().`,
      });
    }
    if (plugin.kind === "divergence" && (plugin.term === undefined) === (plugin.value === undefined)) {
      throw new CheckFailure("it must have either term() or value()", {
        hint: "term() is the summand of one vocabulary entry, value() the whole row's loss.",
      });
    }
    if (plugin.kind === "adapter" && !Array.isArray(plugin.suffixes)) {
      throw new CheckFailure("suffixes is missing", {
        hint: "List every suffix that its parameters may have in files.",
      });
    }
    new Registry().addAll(others).add(plugin);
    return `${plugin.kind} ${plugin.version} for contract ${plugin.contract}`;
  }, "The id must be your own, as author/name, and no other plugin's.");
}

/**
 * Checks the schema of the options and reads those given.
 *
 * @returns the options with defaults, or undefined if there are none that fit
 */
export async function checkOptions(
  plugin: Plugin,
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
    for (const name of "scheduled" in plugin ? plugin.scheduled ?? [] : []) {
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
