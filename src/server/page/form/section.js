/** A part of a form. */
import { h } from "../dom.js";

/** Fields under a title. */
export function section(title, fields, ...rest) {
  return h(
    "fieldset",
    { class: "panel" },
    h("legend", {}, title),
    fields.length > 0 && h("div", { class: "fields" }, ...fields),
    ...rest,
  );
}
