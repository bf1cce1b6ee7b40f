/**
 * The entry of a process that looks at a recipe: opens all that it names, answers one order, and ends.
 *
 * @module
 */
import { builtins } from "../../../../plugins/mod.ts";
import { estimate, preview, validation } from "../../../distill/run/inspect_recipe.ts";
import { openRecipe } from "../../../distill/run/open_recipe.ts";
import { parseRecipe } from "../../../distill/recipe/parse.ts";
import { cachesOf } from "../../../distill/recipe/teachers.ts";
import { DeviceError, InputError } from "../../../base/errors.ts";
import type { DeviceDescription } from "../../../gpu/description.ts";
import { openGpu } from "../../../gpu/device.ts";
import { type PluginModule, registryOf } from "../../../registry/exported_plugins.ts";
import { estimateTask, validateTask } from "../../task/inspect_task.ts";
import { needsGpu } from "../../task/run_recipe.ts";
import { parseTask } from "../../task/task.ts";
import type { InspectionOrder } from "../inspection.ts";
import { encodeLine, LONGEST_LINE } from "../lines.ts";
import { serve } from "./port.ts";

/** Answers an order, and ends the process. */
export function main(modules: readonly PluginModule[]): Promise<never> {
  return serve<InspectionOrder>(async (order, port) => {
    const answer = { type: "answer", value: await inspect(order, modules) };
    const { length } = encodeLine(answer);
    if (length > LONGEST_LINE) throw tooLong(length);
    port.say(answer);
  });
}

/** The parent would not read it: its thread serves others too. */
function tooLong(bytes: number): InputError {
  const mebibytes = (n: number) => `${Math.ceil(n / (1 << 20))} MiB`;
  return new InputError(
    `what there is to say of the recipe takes ${mebibytes(bytes)}, more than ${mebibytes(LONGEST_LINE)}`,
    { hint: "Ask for fewer samples, or choose a shorter data.contextLength." },
  );
}

async function inspect(order: InspectionOrder, modules: readonly PluginModule[]): Promise<unknown> {
  const registry = await registryOf(builtins, modules);
  if (order.kind === "validate-task") return await validateTask(parseTask(order.recipe), registry);
  if (order.kind === "estimate-task") {
    const task = parseTask(order.recipe);
    return await estimateTask(task, registry, needsGpu(task) ? await describedGpu() : undefined);
  }
  const recipe = parseRecipe(order.recipe);
  // The rows of a cache have to be counted.
  const reading = order.kind === "estimate" && cachesOf(recipe.teacher).length > 0 ? "whole" : "look";
  return await openRecipe(recipe, registry, async (opened) => {
    switch (order.kind) {
      case "validate":
        return validation(opened);
      case "estimate":
        return await estimate(opened, false, order.kept);
      case "preview":
        return preview(opened, order.heldOut, order.samples);
    }
  }, { reading });
}

/** What the GPU here is like; undefined where there is none. */
async function describedGpu(): Promise<DeviceDescription | undefined> {
  try {
    const gpu = await openGpu();
    gpu.destroy();
    return gpu.description;
  } catch (error) {
    if (error instanceof DeviceError) return undefined;
    throw error;
  }
}
