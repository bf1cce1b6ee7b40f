/**
 * What a resumed run must share with the run it continues.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { pluginIdentity } from "../../registry/identity.ts";
import type { EncodedSample } from "../../text/encode.ts";
import { canonicalJson } from "../../text/tokenizer_json.ts";
import type { Model } from "../inputs/models.ts";
import type { PreparedRun } from "../inputs/prepare.ts";
import { recipeHash } from "../recipe/recipe.ts";
import type { TrainingSetup } from "../program/trainer.ts";

/** Hashes (SHA-256, hex) under names that tell the user what has changed where one differs. */
export async function runIdentity(
  prepared: PreparedRun,
  setup: TrainingSetup,
): Promise<Record<string, string>> {
  const { adapter, teacherAdapter, objective } = setup;
  const losses = objective.terms.map(({ name, loss, options }) =>
    [`loss ${name}`, sha256(pluginIdentity(loss, options))] as const
  );
  return {
    recipe: recipeHash(prepared.recipe),
    teacher: await modelIdentity(prepared.teacher),
    student: await modelIdentity(prepared.student),
    tokenizer: prepared.tokenizer.fingerprint(),
    "training data": samplesIdentity(prepared.train),
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
    ...Object.fromEntries(losses),
  };
}

/** Hash of weights and config: a rope base or an epsilon changes the model as much as a weight. */
export async function modelIdentity({ source }: Model): Promise<string> {
  return sha256(`${await source.fingerprint()} ${canonicalJson(source.config)}`);
}

/** Hash of the tokens of samples, of which of them are learnt, and of who wrote them. */
export function samplesIdentity(samples: readonly EncodedSample[]): string {
  const hash = createHash("sha256");
  for (const { ids, supervised, origin } of samples) {
    hash.update(Int32Array.of(ids.length));
    hash.update(ids);
    hash.update(supervised);
    if (origin !== undefined) hash.update(origin);
  }
  return hash.digest("hex");
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
