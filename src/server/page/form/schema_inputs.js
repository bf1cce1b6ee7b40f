/** Inputs for values of a JSON Schema. */
import { h } from "../dom.js";

/** The alternative of a schema that has fields. */
export function objectSchema(schema) {
  return schema?.properties
    ? schema
    : schema?.anyOf?.find(({ properties }) => properties) ?? { properties: {} };
}

/** Whether one input can show it. */
export function isSimple(schema) {
  return Boolean(schema.enum) || ["number", "integer", "boolean", "string"].includes(schema.type) ||
    Boolean(schema.anyOf?.some((s) => s.enum || s.type === "number" || s.type === "integer"));
}

/** An input for a value of a schema, and how it is read: undefined where nothing is entered. */
export function inputOf(schema, value) {
  const choices = schema.enum ??
    schema.anyOf?.flatMap((s) => s.enum ?? (s.const === undefined ? [] : [s.const]));
  const shown = value ?? undefined;
  if (schema.type === "boolean") {
    const input = h("input", { type: "checkbox", checked: shown ?? schema.default ?? false });
    return { input, read: () => input.checked === (schema.default ?? false) ? undefined : input.checked };
  }
  if (schema.type === "number" || schema.type === "integer") {
    const input = h("input", {
      type: "number",
      step: schema.type === "integer" ? 1 : "any",
      value: shown,
      placeholder: schema.default,
    });
    return { input, read: () => numberOf(input) };
  }
  if (choices?.length > 0 && schema.enum) {
    // Without a default, none of them is a choice too.
    const all = schema.default === undefined ? ["", ...choices] : choices;
    const input = h(
      "select",
      {},
      ...all.map((choice) =>
        h("option", { value: choice, selected: choice === (shown ?? schema.default ?? "") }, choice || "–")
      ),
    );
    return { input, read: () => input.value === (schema.default ?? "") ? undefined : input.value };
  }
  const input = h("input", { type: "text", value: shown, placeholder: schema.default });
  const isNumber = (text) => text !== "" && Number.isFinite(Number(text)) && schema.type !== "string";
  return {
    input,
    read: () => input.value === "" ? undefined : isNumber(input.value) ? Number(input.value) : input.value,
  };
}

/** What is no number is sent as it is, so that the service says what is wrong with it. */
export function numberOf(input) {
  if (input.validity.badInput) return "not a number";
  return input.value === "" ? undefined : Number(input.value);
}

/** `learningRate` as `Learning rate`. */
export function wordsOf(name) {
  const words = name.replace(/([A-Z])/g, " $1").toLowerCase();
  return words[0].toUpperCase() + words.slice(1);
}

/** What stands first in a description. */
export function firstSentence(text) {
  return (text ?? "").split(/(?<=\.) |; /)[0];
}
