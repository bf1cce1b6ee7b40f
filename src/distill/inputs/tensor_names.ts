/**
 * The names by which a recipe means tensors of a model.
 *
 * @module
 */

/** Whether a recipe's `student.train` names the head, which is the module at `head`. */
export function selectsHead(names: readonly string[], head: string): boolean {
  return names.some((name) => name === "head" || namesTensor(name, `${head}.weight`));
}

/** Whether a name is a tensor's, or its module's, or the end of one from a dot on. */
export function namesTensor(name: string, tensor: string): boolean {
  const module = tensor.slice(0, tensor.lastIndexOf("."));
  return [tensor, module].some((full) => full === name || full.endsWith(`.${name}`));
}
