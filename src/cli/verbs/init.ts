/**
 * `limbeck init`
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { isTaken, writeTextAtomically } from "../../formats/files.ts";
import type { Command, Invocation } from "../command.ts";
import { commentedRecipe } from "./commented_recipe.ts";

/** Writes a commented recipe. */
export const init: Command = {
  name: "init",
  usage: "[FILE]",
  positional: [0, 1],
  details:
    "FILE is recipe.yaml by default. Only the first lines need filling in; every other field shows its default.",
  flags: { force: { help: "Replace a file that is there" } },
  examples: ["limbeck init", "limbeck init my.yaml", "limbeck init my.yaml --force"],
  async run({ args, flags, out }: Invocation): Promise<number> {
    const path = args[0] ?? "recipe.yaml";
    if (!flags.on("force") && await isTaken(path)) {
      throw new InputError("is already there", {
        where: path,
        hint: "Choose another name, or replace it with --force.",
      });
    }
    try {
      await writeTextAtomically(path, commentedRecipe());
    } catch (cause) {
      if (cause instanceof Deno.errors.NotFound) {
        throw new InputError("cannot be written: there is no such folder", { where: path, cause });
      }
      throw cause;
    }
    out.value({ path });
    out.line(
      `Wrote ${path}. Name your models and data in it, then:\n  limbeck validate ${path}\n  limbeck distill ${path}`,
    );
    return 0;
  },
};
