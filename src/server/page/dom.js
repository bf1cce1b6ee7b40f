/** Elements and requests. Text is always set as text, never as markup. */

/**
 * An element with attributes and children. `on...` attributes are listeners; null, undefined and false are left out.
 *
 * @param {string} tag
 * @param {Record<string, unknown>} [attributes]
 * @param {...(Node | string | number | null | undefined | false)} children
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

/** Puts children in the place of those that an element has; null, undefined and false are left out. */
export function fill(element, ...children) {
  element.replaceChildren(
    ...children.filter((child) => child !== null && child !== undefined && child !== false),
  );
}

/** What the service refuses. `param` is the path of the field that is wrong. */
export class ApiError extends Error {
  constructor(status, { message, param, code, problems }) {
    super(message);
    this.status = status;
    this.code = code;
    this.problems = problems ?? (param ? [{ param, message }] : []);
  }
}

/** Sends a request; returns the answer's JSON. */
export async function api(path, { method = "GET", body, signal } = {}) {
  const response = await fetch(path, {
    method,
    signal,
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (!response.ok) throw await failure(response);
  return response.status === 204 ? null : await response.json();
}

/** The error that an answer tells of. */
export async function failure(response) {
  const told = await response.json().catch(() => null);
  return new ApiError(response.status, told?.error ?? { message: `the service answers ${response.status}` });
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

/** Bytes as people read them. */
export function bytes(count) {
  for (const [size, unit] of [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]]) {
    if (count >= size) return `${(count / size).toFixed(count / size < 10 ? 2 : 1)} ${unit}`;
  }
  return `${count} B`;
}

/** Seconds as `0:07` or `3:05:00`. */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const pad = (value) => String(value).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours > 0 ? `${hours}:${pad(minutes)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`;
}

/** A loss; a dash where there is none. */
export function number3(value) {
  return value === null || value === undefined ? "–" : value.toFixed(3);
}

/** What a run distils, in a few words. */
export function titleOf(run) {
  const { teacher, student } = run.recipe;
  const short = (name) => String(name).replace(/\.gguf$/, "");
  if (student?.model === "teacher") {
    return student.layers ? `${short(teacher.model)}, ${student.layers.length} layers` : short(teacher.model);
  }
  return `${short(teacher?.model)} → ${short(student?.model)}`;
}
