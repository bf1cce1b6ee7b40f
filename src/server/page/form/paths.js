/** Paths in a recipe, such as `train.steps` or `objective.0.loss`. */

/** The value at a path. */
export function valueAt(recipe, path) {
  return path.split(".").reduce((node, key) => node?.[key], recipe);
}

/** Sets the value at a path; what is missing on the way is made. */
export function put(recipe, path, value) {
  const keys = path.split(".");
  let node = recipe;
  for (const [i, key] of keys.entries()) {
    if (i === keys.length - 1) node[key] = value;
    else node = node[key] ??= /^\d+$/.test(keys[i + 1]) ? [] : {};
  }
}

/** Takes the value at a path away, if there is one. */
export function take(recipe, path) {
  const keys = path.split(".");
  const last = keys.pop();
  const parent = keys.reduce((node, key) => node?.[key], recipe);
  if (parent && typeof parent === "object") delete parent[last];
}
