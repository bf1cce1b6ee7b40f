/**
 * The shapes of a one-for-all run beside the same shapes only cut, and beside each trained alone for as many steps: the table and the
 * picture in docs/shapes.md.
 *
 *   deno run -A bench/shapes_alone.ts                          examples/recipes/one-for-all.yaml, below limbeck-data/shapes-alone
 *   deno run -A bench/shapes_alone.ts FOLDER --recipe FILE --set train.steps=100
 *
 * Alone: the same cut, a LoRA of the same rank, and the same data, steps and learning rate, with the whole model as frozen teacher and the
 * loss that the shapes learn by. Losses of shapes are those of what was exported; narrower ones are left out. Nothing but commands that
 * anyone can give; each is printed. A run that was ended goes on from its last checkpoint and what is done is not done again, so it may be
 * stopped and started.
 *
 * @module
 */
// @ts-types="../types/std_parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
// @ts-types="../types/std_path.d.ts"
import { join, resolve } from "@std/path";
import { shellQuoted } from "../src/base/quoting.ts";
import { count } from "../src/base/units.ts";
import { table } from "../src/cli/terminal/table.ts";
import type { Recipe } from "../src/distill/recipe/recipe.ts";
import type { RunEvent, ShapesEvent } from "../src/distill/run/events.ts";
import { exists } from "../src/formats/files.ts";
import { frontierCharts } from "../src/runs/report/charts/frontier_chart.ts";
import { standaloneSvg } from "../src/runs/report/html_page.ts";

const ROOT = new URL("..", import.meta.url).pathname;

type Shape = ShapesEvent["shapes"][number];

/** A shape's held-out losses, in nats a token. */
interface Compared extends Pick<Shape, "name" | "layers" | "parameters"> {
  readonly cut: number;
  readonly together: number;
  readonly alone: number;
}

/** Gives a command of the command line, and prints it. @returns what it prints @throws where it fails */
async function limbeck(...args: string[]): Promise<string> {
  console.log(`\n$ limbeck ${args.map(shellQuoted).join(" ")}`);
  const { code, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", join(ROOT, "src/cli/main.ts"), ...args],
    stdout: "piped",
    stderr: "inherit",
  }).output();
  if (code !== 0) throw new Error(`limbeck ${args[0]} ended with ${code}`);
  return new TextDecoder().decode(stdout);
}

/** Trains until the end what was not begun, or not ended. @returns what the run said */
async function trained(folder: string, data: string, recipe: readonly string[]): Promise<RunEvent[]> {
  const log = join(folder, "events.jsonl");
  const read = async () =>
    (await Deno.readTextFile(log)).trim().split("\n").map((line) => JSON.parse(line) as RunEvent);
  const begun = await exists(log);
  if (begun && (await read()).some((event) => event.type === "result")) return await read();
  if (begun) await limbeck("resume", folder, "--data", data);
  else await limbeck("distill", ...recipe, "--data", data, "--output", folder);
  return await read();
}

function measuredShapes(events: readonly RunEvent[], step: number): readonly Shape[] {
  const found = events.find((event) => event.type === "shapes" && event.step === step);
  if (found?.type !== "shapes") throw new Error(`no shapes were measured after ${step} steps`);
  return found.shapes;
}

/** The recipe that trains one of the shapes by itself. */
function aloneRecipe(recipe: Recipe, { layers }: Shape): Record<string, unknown> {
  const { oneForAll, ...train } = recipe.train;
  if (recipe.adapter === "none") throw new Error("the recipe trains no adapter");
  return {
    ...{ teacher: recipe.teacher, data: recipe.data, samples: recipe.samples, train },
    student: { ...recipe.student, shapes: undefined, layers },
    objective: [{ loss: oneForAll!.loss }],
    adapter: { ...recipe.adapter, type: "lora", options: {} },
  };
}

/** Held-out loss of a model folder. */
async function lossOf(model: string, { data }: Recipe): Promise<number> {
  const sets = [data.heldOut].flat().map((set) => typeof set === "string" ? set : set!.path);
  const printed = await limbeck(
    ...["eval", "--model", model, "--dataset", sets[0]!, "--context-length", `${data.contextLength}`],
    ...["--end-token", `${data.endToken}`, "--json"],
  );
  return JSON.parse(printed).loss;
}

/** Loss against parameters, trained together and only cut. */
function picture(compared: readonly Compared[], whole: Shape): string {
  const [svg] = frontierCharts([
    { name: whole.name, parameters: whole.parameters, value: whole.loss },
    ...compared.flatMap(({ name, parameters, cut, together }) => [
      { name, parameters, value: together },
      { name: `${name}, only cut`, parameters, value: cut },
    ]),
  ], { name: "held-out loss" });
  return standaloneSvg(svg!);
}

if (import.meta.main) {
  const { recipe: file = join(ROOT, "examples/recipes/one-for-all.yaml"), set = [], _: [given] } = parseArgs(
    Deno.args,
    { string: ["recipe", "set"], collect: ["set"] },
  ) as { readonly recipe?: string; readonly set?: string[]; readonly _: readonly (string | number)[] };
  const root = resolve(String(given ?? "limbeck-data/shapes-alone"));
  const data = join(root, "data");
  await Deno.mkdir(root, { recursive: true });
  const together = join(root, "together");
  const events = await trained(together, data, [file, ...set.flatMap((change) => ["--set", change])]);
  const recipe: Recipe = JSON.parse(await Deno.readTextFile(join(together, "recipe.json")));
  const before = measuredShapes(events, 0);
  const [whole, ...after] = measuredShapes(events, recipe.train.steps) as [Shape, ...Shape[]];
  const compared: Compared[] = [];
  for (const shape of after) {
    if (shape.width !== 1) continue;
    const { name, layers, parameters } = shape;
    // A comma in a path is nothing that a run's permissions can express.
    const plain = name.replaceAll(/[=,]/g, "-");
    const alone = join(root, `alone-${plain}`);
    await Deno.writeTextFile(`${alone}.json`, JSON.stringify(aloneRecipe(recipe, shape), null, 2) + "\n");
    const result = (await trained(alone, data, [`${alone}.json`])).find((event) => event.type === "result");
    if (result?.type !== "result") throw new Error(`${alone} has no result`);
    const exported = join(root, `exported-${plain}`);
    if (!await exists(exported)) {
      await limbeck("export", "--run", together, "--shape", name, "--target", "merged", "--output", exported);
    }
    compared.push({
      ...{ name, layers, parameters, cut: before.find((b) => b.name === name)!.loss! },
      together: await lossOf(exported, recipe),
      alone: result.result.heldOut.after!,
    });
  }
  await Deno.writeTextFile(join(root, "shapes.svg"), picture(compared, whole));
  const rows = compared.map(({ layers, parameters, cut, together, alone }) => [
    ...[layers.join(", "), count(parameters), cut.toFixed(3), together.toFixed(3), alone.toFixed(3)],
    `${(100 * (together / alone - 1)).toFixed(1)} %`,
  ]);
  console.log(
    `\nthe whole model, ${count(whole.parameters)}: ${before[0]!.loss!.toFixed(3)}, ` +
      `after the run ${whole.loss!.toFixed(3)}`,
  );
  const head = ["layers", "parameters", "only cut", "one-for-all", "alone", "one-for-all is off by"];
  for (const line of table(head, rows)) console.log(line);
}
