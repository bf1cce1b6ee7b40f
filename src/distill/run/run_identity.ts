/**
 * What a resumed run must share with the run it continues.
 *
 * @module
 */
import { pluginIdentity } from "../../registry/identity.ts";
import { modelIdentity, samplesIdentity, sha256 } from "../inputs/identity.ts";
import type { Model } from "../inputs/models.ts";
import type { PreparedRun } from "../inputs/prepare.ts";
import { trainingIdentity } from "../inputs/training_batches.ts";
import { type ShapeSpace } from "../inputs/shape_space.ts";
import { cutIdentity } from "../inputs/cut_model.ts";
import { recipeHash } from "../recipe/parse.ts";
import type { TrainingSetup } from "../program/plan_training.ts";
import { teacherIdentity } from "../teacher/served.ts";
import { preparedOf } from "../teacher/teacher_targets.ts";

/** Hashes (SHA-256, hex) under names that tell the user what has changed where one differs. */
export async function runIdentity(
  prepared: PreparedRun,
  setup: TrainingSetup,
): Promise<Record<string, string>> {
  const { recipe } = prepared;
  const { adapter, teacherAdapter, objective } = setup;
  const losses = objective.terms.map(({ name, loss, options }) =>
    [`loss ${name}`, sha256(pluginIdentity(loss, options))] as const
  );
  return {
    recipe: recipeHash(recipe),
    teacher: await identityOfTeacher(prepared, 0),
    ...await otherTeachers(prepared),
    student: await modelIdentity(prepared.student),
    // The recipe only says where the files of shapes are.
    ...(prepared.student.shapes
      ? { "student's shapes": sha256(shapesIdentity(prepared.student.shapes)) }
      : {}),
    ...(recipe.student.shape === undefined
      ? {}
      : { "student's shape": sha256(prepared.student.keptLayers.join(",")) }),
    ...familyIdentities([...prepared.teachers, prepared.student]),
    ...quantisedExperts(prepared),
    tokenizer: prepared.tokenizer.fingerprint(),
    ...(prepared.aligned ? { "teacher's tokenizer": prepared.aligned.tokenizer.fingerprint() } : {}),
    "training data": trainingIdentity(prepared),
    "held-out data": samplesIdentity(prepared.heldOut),
    ...(adapter
      ? { [`adapter ${adapter.plugin.id}`]: sha256(pluginIdentity(adapter.plugin, adapter.options)) }
      : {}),
    ...(teacherAdapter
      ? {
        [`teacher's adapter ${teacherAdapter.plugin.id}`]: sha256(
          pluginIdentity(teacherAdapter.plugin, teacherAdapter.options),
        ),
      }
      : {}),
    ...expertIdentities([adapter, teacherAdapter]),
    ...Object.fromEntries(losses),
  };
}

/** Experts were not quantised at first, and a run that was begun so cannot go on otherwise. */
function quantisedExperts({ teachers, student }: PreparedRun): Record<string, string> {
  const models = [
    ...teachers.map((teacher, i) => [i === 0 ? "teacher" : `teacher ${i + 1}`, teacher] as const),
    ["student", student] as const,
  ];
  return Object.fromEntries(
    models.flatMap(([name, model]) =>
      model.hasQuantisedExperts ? [[`${name}'s experts`, model.quantize!]] : []
    ),
  );
}

/** Those of several teachers but the first; the recipe says the rest. */
async function otherTeachers(prepared: PreparedRun): Promise<Record<string, string>> {
  const { recipe, teachers } = prepared;
  const others = teachers.slice(1).map(async (_, i) =>
    [`teacher ${recipe.teacher.teachers![i + 1]!.name}`, await identityOfTeacher(prepared, i + 1)] as const
  );
  return Object.fromEntries(await Promise.all(others));
}

/** Of one behind a server what its cache is known by; of others what their files are. */
async function identityOfTeacher(prepared: PreparedRun, i: number): Promise<string> {
  const own = preparedOf(prepared, i);
  return own.recipe.teacher.server ? await teacherIdentity(own) : await modelIdentity(own.teacher);
}

/** What adapters do with experts, where they have some. */
function expertIdentities(adapters: TrainingSetup["adapter"][]): Record<string, string> {
  const some = adapters.flatMap((adapter) => adapter?.adaptsExperts ? [adapter.plugin] : []);
  return Object.fromEntries(
    some.map(({ id, experts }) => [`adapter ${id} on experts`, sha256(String(experts))]),
  );
}

/** Of families that are plugins: their own text, and what it makes of the models' configs. */
function familyIdentities(models: readonly Model[]): Record<string, string> {
  const made = models.flatMap(({ architecture: { family: { name, identity }, config } }) =>
    identity === undefined ? [] : [[`family ${name}`, `${identity} ${JSON.stringify(config)}`] as const]
  );
  const names = [...new Set(made.map(([name]) => name))];
  return Object.fromEntries(names.map((name) => [
    name,
    sha256(made.filter(([of]) => of === name).map(([, text]) => text).join("\n")),
  ]));
}

function shapesIdentity({ depths, widths }: ShapeSpace): string {
  const cuts = widths.map(({ share, cut }) => `${share} ${cut ? cutIdentity(cut, depths[0]!) : "whole"}`);
  return [...depths.map((kept) => kept.join(",")), ...cuts].join("; ");
}
