/** What the browser remembers of how someone likes to see things. It may refuse to. */

/** What was remembered under a name; undefined where there is nothing. */
export function remembered(name) {
  try {
    return JSON.parse(localStorage.getItem(`limbeck.${name}`)) ?? undefined;
  } catch {
    return undefined;
  }
}

/** Remembers a value that JSON can hold. */
export function remember(name, value) {
  try {
    localStorage.setItem(`limbeck.${name}`, JSON.stringify(value));
  } catch {
    // Then it holds for this visit.
  }
}
