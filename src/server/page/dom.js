/** Elements. Text is always set as text, never as markup. */

/**
 * An element with attributes and children. `on...` attributes are listeners; null, undefined and false are left out.
 *
 * @param {string} tag
 * @param {Record<string, unknown>} [attributes]
 * @param {...(Node | string | number | null | undefined | false)} children
 */
export function h(tag, attributes = {}, ...children) {
  return withAll(document.createElement(tag), attributes, children);
}

/** The same for the elements of a drawing. */
export function svg(tag, attributes = {}, ...children) {
  return withAll(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function withAll(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter(isThere));
  return element;
}

/** Puts children in the place of those that an element has; null, undefined and false are left out. */
export function fill(element, ...children) {
  element.replaceChildren(...children.filter(isThere));
}

function isThere(child) {
  return child !== false && child !== null && child !== undefined;
}

let toastTimer;

/** Shows a sentence for some seconds. */
export function toast(text) {
  const element = document.getElementById("toast");
  element.textContent = text;
  element.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => element.hidden = true, 7000);
}
