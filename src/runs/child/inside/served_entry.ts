/**
 * The entry of a process that finds what a run wants of teachers behind servers: opens the recipe, says its samples as token ids, and
 * ends.
 *
 * @module
 */
import { builtins } from "../../../../plugins/mod.ts";
import { samplesIdentity } from "../../../distill/inputs/identity.ts";
import { parseRecipe } from "../../../distill/recipe/parse.ts";
import { keepsPart, servedTeachers, teachersBySample } from "../../../distill/recipe/teachers.ts";
import { type OpenedRecipe, openRecipe } from "../../../distill/run/open_recipe.ts";
import { taggedChoice } from "../../../distill/teacher/choose.ts";
import { wantedCache } from "../../../distill/teacher/make_cache.ts";
import { lossKey, measuredTokens } from "../../../distill/teacher/sample_losses.ts";
import { preparedOf, samplesOf, setupOf } from "../../../distill/teacher/teacher_targets.ts";
import { type PluginModule, registryOf } from "../../../registry/exported_plugins.ts";
import type { EncodedSample } from "../../../text/encode.ts";
import { TokenTexts } from "../../../text/token_texts.ts";
import type { TextTokenizer } from "../../../text/tokenizer.ts";
import type { ServedMessage, ServedOrder, WantedSample } from "../served_samples.ts";
import { serve } from "./port.ts";

/** Samples, and texts, of one line. */
const [SAMPLES, TEXTS] = [100, 10_000];

/** A text that most vocabularies cut in several places. */
const PROBE = "Once upon a time there were 27 small robots; they liked to count.";

/** Answers an order, and ends the process. */
export function main(modules: readonly PluginModule[]): Promise<never> {
  return serve<ServedOrder>(async ({ recipe, place }, port) => {
    const registry = await registryOf(builtins, modules);
    await openRecipe(parseRecipe(recipe), registry, async (opened) => {
      const say = (message: ServedMessage) => port.say(message);
      for (const { index } of servedTeachers(opened.recipe.teacher)) {
        await sayWanted(opened, index, place, say);
      }
      const { tokenizer, student } = opened.prepared;
      const texts = new TokenTexts(tokenizer);
      const all = Array.from({ length: student.config.vocabularySize }, (_, id) => texts.of(id));
      inLines(all, TEXTS, (texts) => say({ type: "texts", texts }));
      say({ type: "done" });
      await Promise.resolve();
    });
  });
}

/** Says what is wanted of one teacher: of several the samples that rows give it, or all, since none is known to be another's. */
async function sayWanted(
  { recipe: { teacher }, prepared: all, setup: ofAll }: OpenedRecipe,
  index: number,
  place: string,
  say: (message: ServedMessage) => void,
): Promise<void> {
  const choice = taggedChoice(all);
  const prepared = preparedOf(choice ? samplesOf(choice, index, all) : all, index);
  const setup = setupOf(ofAll, index);
  const { origin, place: folder, keys } = (await wantedCache(prepared, setup, [place]))!;
  const { sets, tokenizer, heldOut } = prepared;
  const hashes = (samples: readonly EncodedSample[]) => samples.map((sample) => keys.get(sample)!.hash);
  // Hidden states are measured by the head; and what several are together is measured with the student.
  const keepsLosses = teachersBySample(teacher) > 0 && keepsPart(setup.recipe.teacher.cache);
  say({
    type: "wanted",
    ...{ teacher: index, origin, place: folder, keepsLosses },
    heldOut: teacher.teachers ? [] : sets.heldOut.map(({ samples }) => ({
      id: samplesIdentity(samples),
      hashes: hashes(samples),
    })),
    probe: probeOf(tokenizer, [...all.train, ...all.heldOut][0]!),
  });
  const measured = new Set(teacher.teachers ? keepsLosses ? keys.keys() : [] : heldOut);
  const different = new Map<string, WantedSample>();
  for (const [sample, { hash, positions }] of keys) {
    const known = different.get(hash);
    if (keepsLosses && known) {
      // Of tokens that are there already, others may be learnt: nothing more is wanted than the loss on these.
      const measured = measuredTokens(sample);
      const other = `${hash} ${lossKey(sample.ids, measured)}`;
      if (String(measured) === String(known.measured) || different.has(other)) continue;
      different.set(other, { ...known, hash: other, positions: [], measured });
      continue;
    }
    different.set(hash, {
      ...{ hash, ids: [...sample.ids], positions },
      ...(measured.has(sample) ? { measured: measuredTokens(sample) } : known?.measured ? known : {}),
      ...textOf(tokenizer, sample),
      where: `${sample.source.file}:${sample.source.line}`,
    });
  }
  inLines([...different.values()], SAMPLES, (samples) => say({ type: "samples", samples }));
}

/** A text whose tokens the server is asked for, and they as samples begin. */
function probeOf(tokenizer: TextTokenizer, { ids }: EncodedSample) {
  let text = PROBE;
  let plainIds: number[];
  try {
    plainIds = [...tokenizer.encode(text, { addBos: false })];
    if (plainIds.includes(tokenizer.unknownToken ?? -1)) throw new Error("it has unknown characters");
  } catch {
    // A vocabulary of another alphabet: the data are in it.
    const some = ids.filter((id) => !tokenizer.isSpecial(id)).slice(0, 24);
    text = tokenizer.decode(some);
    plainIds = [...tokenizer.encode(text, { addBos: false })];
  }
  const { bosToken } = tokenizer;
  const bos = bosToken === undefined ? undefined : tokenizer.tokenText(bosToken);
  return { text, plainIds, ids: [...tokenizer.encode(text)], ...(bos === undefined ? {} : { bos }) };
}

/** The text of a sample, special tokens written out, where its tokens can be had of it again. */
function textOf(tokenizer: TextTokenizer, { ids }: EncodedSample): { text?: string } {
  const { prefix } = tokenizer.bosPolicy;
  const plain = ids.subarray(prefix.every((id, i) => ids[i] === id) ? prefix.length : 0);
  const text = tokenizer.decode(plain);
  const again = tokenizer.encode(text, { addBos: false, special: true });
  return again.length === plain.length && again.every((id, i) => id === plain[i]) ? { text } : {};
}

function inLines<T>(items: readonly T[], count: number, say: (some: readonly T[]) => unknown): void {
  for (let at = 0; at < items.length; at += count) say(items.slice(at, at + count));
}
