/** The fields of the form: each has a path in the recipe, and is where a problem with that path is shown. */
import { h } from "../dom.js";
import { put, take, valueAt } from "./paths.js";
import { firstSentence, inputOf, isSimple, objectSchema, wordsOf } from "./schema_inputs.js";

/** Stands for a list of sets among the names of datasets, none of which has a blank. */
const SETS = "several sets";

/** A list of sets in words. */
function setNames(sets) {
  const names = sets.map(({ path, name = path, weight }) =>
    weight === undefined ? name : `${weight} ${name}`
  );
  return `${names.join(" + ")} (edit as JSON)`;
}

/** Fields by their paths. */
export class Fields {
  #known = new Map();

  /**
   * Adds a field; returns its element.
   *
   * @param {{read?: () => unknown, wide?: boolean, apart?: boolean}} [how] `apart` where it is no part of the recipe
   */
  add(path, label, help, input, { read = () => input.value, wide = false, apart = false } = {}) {
    const id = `field-${path.replaceAll(".", "-")}`;
    input.id = id;
    const wrong = h("p", { class: "wrong", id: `${id}-wrong` });
    input.setAttribute("aria-describedby", `${help ? `${id}-help ` : ""}${id}-wrong`);
    const element = h(
      "div",
      { class: `field${wide ? " wide" : ""}` },
      h("label", { for: id }, label),
      input,
      wrong,
      help ? h("p", { class: "help", id: `${id}-help` }, help) : null,
    );
    this.#known.set(path, { element, input, wrong, read, apart });
    return element;
  }

  /**
   * A choice among values. `names` has what is shown in place of some, `read` makes of a value what stands in the recipe. A list of sets
   * stays one more choice, and so does what is not among the values: a run that is to be like another never gets something else unasked.
   */
  choice(path, label, values, current = "", names = {}, read = (value) => value || undefined) {
    const isList = Array.isArray(current);
    const chosen = isList ? SETS : current;
    const shown = chosen === "" || values.includes(chosen) ? values : [chosen, ...values];
    const nameOf = (value) => value === SETS ? setNames(current) : names[value] ?? value;
    const select = h(
      "select",
      {},
      ...shown.map((value) => h("option", { value, selected: value === chosen }, nameOf(value))),
    );
    if (!shown.includes(chosen) && shown.length > 0) select.value = shown[0];
    return this.add(path, label, "", select, {
      read: () => select.value === SETS ? current : read(select.value),
    });
  }

  /** A text that stands for a value. */
  text(path, label, help, current, { read, write, rows }) {
    const input = rows ? h("textarea", { rows }) : h("input", { type: "text" });
    input.value = write(current);
    return this.add(path, label, help, input, { read: () => read(input.value), wide: Boolean(rows) });
  }

  /** Fields of the properties of a schema that one input each can show. */
  ofSchema(path, properties, values, names = Object.keys(properties)) {
    return names.filter((name) => properties[name] && isSimple(properties[name])).map((name) => {
      const { input, read } = inputOf(properties[name], values?.[name]);
      const help = firstSentence(properties[name].description);
      return this.add(path === "" ? name : `${path}.${name}`, wordsOf(name), help, input, { read });
    });
  }

  /** Those of a section of the recipe: the named ones, or, folded away, all others. */
  ofSection(schema, recipe, section, { only, except }) {
    const { properties } = objectSchema(schema.properties[section]);
    const names = only ?? Object.keys(properties).filter((name) => !except.includes(name));
    const fields = this.ofSchema(section, properties, valueAt(recipe, section), names);
    if (only) return fields;
    return fields.length > 0
      ? [h("details", {}, h("summary", {}, "More"), h("div", { class: "fields" }, ...fields))]
      : [];
  }

  /** What is entered in a field. */
  value(path) {
    return this.#known.get(path).read();
  }

  /** The input of a field. */
  input(path) {
    return this.#known.get(path).input;
  }

  /** Forgets all fields whose paths begin in a way. */
  forget(prefix) {
    for (const path of this.#known.keys()) if (path.startsWith(prefix)) this.#known.delete(path);
  }

  /** Takes away from a recipe what fields say, and puts what they say now in its place. */
  write(recipe) {
    const own = [...this.#known].filter(([, { apart }]) => !apart);
    for (const [path] of own) take(recipe, path);
    for (const [path, { read }] of own) {
      const value = read();
      if (value !== undefined) put(recipe, path, value);
    }
  }

  /**
   * Shows each problem beside its field, or beside that of the closest part of the recipe that has one. Returns those without a field.
   *
   * @param {{param: string, message: string}[]} problems
   * @param {{focus?: boolean, onlyApart?: boolean}} [how] whether the first wrong field gets the focus; whether only fields that are no
   *     part of the recipe count
   */
  tell(problems, { focus = false, onlyApart = false } = {}) {
    for (const { element, wrong, input } of this.#known.values()) {
      element.classList.remove("invalid");
      input.removeAttribute("aria-invalid");
      wrong.textContent = "";
    }
    let first;
    const others = problems.filter(({ param, message }) => {
      const field = this.#closest(param.replace(/^recipe\./, ""));
      if (!field || (onlyApart && !field.apart)) return true;
      field.element.classList.add("invalid");
      field.input.setAttribute("aria-invalid", "true");
      field.wrong.textContent = message;
      field.element.closest("details")?.setAttribute("open", "");
      first ??= field.input;
      return false;
    });
    if (focus) first?.focus();
    return others;
  }

  #closest(path) {
    for (let at = path; at !== ""; at = at.includes(".") ? at.slice(0, at.lastIndexOf(".")) : "") {
      if (this.#known.has(at)) return this.#known.get(at);
    }
    return undefined;
  }
}
