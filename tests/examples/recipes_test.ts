/** The recipes of examples/recipes: each is planned, two are run. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertMatch } from "@std/assert";
// @ts-types="../../types/std_path.d.ts"
import { fromFileUrl, join } from "@std/path";
import { checkComparable, comparedRecipe } from "../../src/distill/run/comparability.ts";
import { setUp } from "../../src/distill/run/set_up.ts";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import { runMemory } from "../../src/distill/program/memory.ts";
import { openStudent, prepareRun } from "../../src/distill/inputs/prepare.ts";
import { loadRecipe } from "../../src/distill/recipe/file.ts";
import { checkRecipePlugins } from "../../src/distill/recipe/plugins.ts";
import { sampleBytes } from "../../src/distill/generate/samples.ts";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import { DEFAULT_DEVICE } from "../../src/gpu/description.ts";
import { Registry } from "../../src/registry/registry.ts";
import { builtins } from "../../plugins/mod.ts";
import { withTiny } from "../distill/tiny_model.ts";
import { runHere } from "../distill/tiny_run.ts";

const folder = fromFileUrl(new URL("../../examples/recipes/", import.meta.url));
const registry = new Registry().addAll(builtins);

function recipeFiles(): string[] {
  return [...Deno.readDirSync(folder)].map(({ name }) => name).filter((name) => name.endsWith(".yaml"))
    .sort();
}

Deno.test("every recipe of examples/recipes says what it is, where it comes from and how it is run", async () => {
  const list = await Deno.readTextFile(join(folder, "README.md"));
  const files = recipeFiles();
  assert(files.length >= 7, `only ${files.length} recipes were found`);
  for (const file of files) {
    const text = await Deno.readTextFile(join(folder, file));
    const header = text.slice(0, text.search(/^[^#\n]/m));
    assertMatch(header, /^# \S/, file);
    assertMatch(header, /\narXiv|# Source: [^]*\barXiv \d{4}\.\d{5}/, file);
    assert(header.includes(`#   deno task distill examples/recipes/${file}\n`), file);
    assert(list.includes(`[${file}](${file})`), `${file} is not in README.md`);
  }
});

Deno.test("every recipe of examples/recipes is valid and can be planned, and they can be compared", async () => {
  const compared = [];
  const read = new Set<string>();
  for (const file of recipeFiles()) {
    let recipe = await loadRecipe(join(folder, file));
    checkRecipePlugins(recipe, registry);
    // Most of the time goes into cutting the same stories into tokens, so data that one recipe has read are few to the others.
    const data = JSON.stringify([recipe.teacher.model, recipe.data]);
    if (read.has(data)) {
      recipe = await loadRecipe(join(folder, file), { sets: [`data.train=${recipe.data.heldOut}`] });
    }
    read.add(data);
    const prepared = await prepareRun(recipe);
    try {
      const setup = setUp(prepared, registry);
      const samples = sampleBytes(DEFAULT_DEVICE, prepared, setup);
      const { plan } = planTraining(setup, DEFAULT_DEVICE, { sampleBytes: () => samples });
      assert(runMemory(plan, samples).total > 50e6, file);
      // One that is measured on more than the stories, or on less of them, is compared with itself.
      if (prepared.sets.heldOut.length === 1 && recipe.data.contextLength === 256) {
        compared.push(comparedRecipe(file, prepared));
      }
    } finally {
      prepared.close();
    }
  }
  await checkComparable(compared);
});

/**
 * Runs two steps of a recipe on one held-out story, or on whatever `sets` name in its place; gives the losses of each.
 */
async function firstSteps(file: string, sets: string[] = []): Promise<Record<string, number | null>[]> {
  const temporary = await Deno.makeTempDir({ prefix: "limbeck-" });
  try {
    const heldOut = join(temporary, "heldout.jsonl");
    const stories = await Deno.readTextFile(join(folder, "../stories/heldout.jsonl"));
    await Deno.writeTextFile(heldOut, stories.split("\n")[0]! + "\n");
    const recipe = await loadRecipe(join(folder, file), {
      sets: [
        "train.steps=2",
        "train.warmup=0",
        `data.heldOut=${heldOut}`,
        "samples.tokens=0",
        // As it is they are planned above; a quarter of the tokens shows as well that they run.
        "data.contextLength=64",
        "train.tokensPerMicroBatch=64",
        ...sets,
      ],
    });
    const events: RunEventBody[] = [];
    const result = await runHere(recipe, join(temporary, "run"), {}, events);
    assertEquals([result.status, result.steps], ["succeeded", 2]);
    const metrics = events.filter((event) => event.type === "metrics");
    assertEquals(metrics.map((event) => event.step), [1, 2]);
    for (const { loss } of metrics) assert(Number.isFinite(loss));
    return metrics.map(({ losses }) => losses);
  } finally {
    await Deno.remove(temporary, { recursive: true });
  }
}

Deno.test("rlkd.yaml runs", () =>
  // Its loss over large vocabularies is compared with f64 elsewhere; here its kernels would take nearly all of the time to compile.
  withTiny(async ({ teacher, train, heldOut }) => {
    const sets = [`teacher.model=${teacher}`, `data.train=${train}`, `data.heldOut=${heldOut}`];
    for (const losses of await firstSteps("rlkd.yaml", [...sets, "output.merged=false"])) {
      assert(Number.isFinite(losses["rank-correlation"]));
    }
  }, { layers: 6 }));

Deno.test("width-and-depth.yaml trains a student that its shape cuts", async () => {
  for (const losses of await firstSteps("width-and-depth.yaml")) assert(losses["forward-kl"]! > 0);
});

Deno.test("shapes of recipes are those of the example's model, and as large as their headers say", async () => {
  // Five heads, filled up to a number that divides the hidden size.
  const sizes = { "cut-and-mend.yaml": [3, 6, 768], "width-and-depth.yaml": [4, 6, 576] };
  for (const [file, expected] of Object.entries(sizes)) {
    // It is refused for another model.
    const student = await openStudent(await loadRecipe(join(folder, file)));
    student.close();
    const { layers, keyValueHeads, intermediateSize } = student.config;
    assertEquals([layers, keyValueHeads, intermediateSize], expected, file);
  }
});
