/**
 * The entry of a process that writes text: opens one model, and writes what it is asked for until its orders end.
 *
 * @module
 */
import { familiesOf } from "../../../registry/families.ts";
import { builtins } from "../../../../plugins/mod.ts";
import { TextWriter } from "../../../distill/generate/text_writer.ts";
import { type PluginModule, registryOf } from "../../../registry/exported_plugins.ts";
import { TunedDevices } from "../../../tune/tuned_devices.ts";
import type { InferenceModel, InferenceStart } from "../inference.ts";
import { writeHeadFolder } from "../../../distill/export/head_folder.ts";
import type { Registry } from "../../../registry/registry.ts";
import { Desk } from "./inference_desk.ts";
import { serve } from "./port.ts";
import { InputError } from "../../../base/errors.ts";

/** Longest sequence, prompt included, where the model allows more: its cache takes memory. */
const LONGEST = 2048;

/** Writes what the orders after the first ask for, and ends the process when they end. */
export function main(modules: readonly PluginModule[]): Promise<never> {
  return serve<InferenceStart>(async ({ model, tuned }, port) => {
    const devices = new TunedDevices(tuned);
    const registry = await registryOf(builtins, modules);
    const writer = await open(model, registry);
    const length = Math.min(writer.model.config.contextLength, LONGEST);
    await writer.prepare({ sequences: 1, length }, devices);
    const head = async (path: string) => {
      if (!("path" in model)) {
        throw new InputError("of a run's student no head is given: export its merged model");
      }
      await writeHeadFolder(model.path, path, familiesOf(registry));
    };
    const desk = new Desk(writer, head, port);
    desk.say({ type: "ready", kernels: devices.taken });
    await desk.work();
  });
}

async function open(model: InferenceModel, registry: Registry): Promise<TextWriter> {
  if ("path" in model) return await TextWriter.open(model.path, familiesOf(registry));
  return await TextWriter.open({ ...model, registry });
}
