/**
 * The entry of a process that looks at a recipe: opens all that it names, answers one order, and ends.
 *
 * @module
 */
import { builtins } from "../../../plugins/mod.ts";
import { estimate, preview, validation } from "../../distill/run/inspect_recipe.ts";
import { openRecipe } from "../../distill/run/open_recipe.ts";
import { parseRecipe } from "../../distill/recipe/parse.ts";
import { InputError } from "../../base/errors.ts";
import { Registry } from "../../registry/registry.ts";
import { loadPlugins, type PluginModule } from "../../registry/exported_plugins.ts";
import type { InspectionAnswer, InspectionOrder } from "./inspection.ts";
import { LONGEST_LINE, readLines } from "./training.ts";
import { tellError } from "./told_error.ts";

/** Answers the order on stdin with one line on stdout, and ends the process. */
export async function main(modules: readonly PluginModule[]): Promise<never> {
  // Stdout carries the answer only.
  console.log = console.info = console.debug = console.error;
  let answer: InspectionAnswer;
  try {
    const { value: line } = await readLines(Deno.stdin.readable).next();
    answer = { value: await inspect(JSON.parse(line ?? "null"), modules) };
  } catch (error) {
    answer = { error: tellError(error) };
  }
  let bytes = encoded(answer);
  if (bytes.length > LONGEST_LINE) bytes = encoded({ error: tellError(tooLong(bytes.length)) });
  for (let done = 0; done < bytes.length;) done += Deno.stdout.writeSync(bytes.subarray(done));
  // GPU objects may keep the process alive.
  Deno.exit(0);
}

const encoded = (answer: InspectionAnswer) => new TextEncoder().encode(JSON.stringify(answer) + "\n");

/** The parent would not read it: its thread serves others too. */
function tooLong(bytes: number): InputError {
  const mebibytes = (n: number) => `${Math.ceil(n / (1 << 20))} MiB`;
  return new InputError(
    `what there is to say of the recipe takes ${mebibytes(bytes)}, more than ${mebibytes(LONGEST_LINE)}`,
    { hint: "Ask for fewer samples, or choose a shorter data.contextLength." },
  );
}

async function inspect(order: InspectionOrder, modules: readonly PluginModule[]): Promise<unknown> {
  const registry = new Registry().addAll(builtins);
  for (const module of modules) registry.addAll(await loadPlugins(module), module.path);
  return await openRecipe(parseRecipe(order.recipe), registry, async (opened) => {
    switch (order.kind) {
      case "validate":
        return validation(opened);
      case "estimate":
        return await estimate(opened, false);
      case "preview":
        return preview(opened, order.heldOut, order.samples);
    }
  });
}
