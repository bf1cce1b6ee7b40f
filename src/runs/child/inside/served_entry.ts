/**
 * The entry of a process that finds what a run wants of a teacher behind a server: opens the recipe, says its samples as token ids, and
 * ends.
 *
 * @module
 */
import { builtins } from "../../../../plugins/mod.ts";
import { samplesIdentity } from "../../../distill/inputs/identity.ts";
import { parseRecipe } from "../../../distill/recipe/parse.ts";
import { openRecipe } from "../../../distill/run/open_recipe.ts";
import { wantedCache } from "../../../distill/teacher/make_cache.ts";
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
    await openRecipe(parseRecipe(recipe), registry, async ({ prepared, setup }) => {
      const { origin, place: folder, keys } = (await wantedCache(prepared, setup, [place]))!;
      const { train, sets, tokenizer, student } = prepared;
      const say = (message: ServedMessage) => port.say(message);
      const hashes = (samples: readonly EncodedSample[]) => samples.map((sample) => keys.get(sample)!.hash);
      say({
        type: "wanted",
        origin,
        place: folder,
        heldOut: sets.heldOut.map(({ samples }) => ({
          id: samplesIdentity(samples),
          hashes: hashes(samples),
        })),
        probe: probeOf(tokenizer, [...train, ...prepared.heldOut][0]!),
      });
      const measured = new Set(prepared.heldOut);
      const different = new Map<string, WantedSample>();
      for (const [sample, { hash, positions }] of keys) {
        const known = different.get(hash);
        different.set(hash, {
          ...{ hash, ids: [...sample.ids], positions },
          ...(measured.has(sample) ? { measured: supervisedOf(sample) } : known?.measured ? known : {}),
          ...textOf(tokenizer, sample),
          where: `${sample.source.file}:${sample.source.line}`,
        });
      }
      inLines([...different.values()], SAMPLES, (samples) => say({ type: "samples", samples }));
      const texts = new TokenTexts(tokenizer);
      const all = Array.from({ length: student.config.vocabularySize }, (_, id) => texts.of(id));
      inLines(all, TEXTS, (texts) => say({ type: "texts", texts }));
      say({ type: "done" });
      await Promise.resolve();
    });
  });
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

function supervisedOf({ ids, supervised }: EncodedSample): number[] {
  return Array.from(ids.keys()).filter((i) => i > 0 && supervised[i] === 1);
}

function inLines<T>(items: readonly T[], count: number, say: (some: readonly T[]) => unknown): void {
  for (let at = 0; at < items.length; at += count) say(items.slice(at, at + count));
}
