/**
 * The work of filling one cache from a server.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { InputError } from "../../base/errors.ts";
import { exists, writeTextAtomically } from "../../formats/files.ts";
import type { CacheFolder } from "../../distill/teacher/cache_folder.ts";
import { CacheWriter } from "../../distill/teacher/cache_writer.ts";
import { RECORDS } from "../../distill/teacher/make_cache.ts";
import { keepLosses, keptLosses, lossKey } from "../../distill/teacher/sample_losses.ts";
import { keepsHidden, type PayloadFormat } from "../../distill/teacher/payload.ts";
import type { PlaceScores, TokenNames } from "../../served/answers.ts";
import { Budget } from "../../served/budget.ts";
import { openServed } from "../../served/open_served.ts";
import { hostOf, type Patience } from "../../served/requests.ts";
import { type Probe, sentText, type ServedModel } from "../../served/served_model.ts";
import type { Environment, ServerSettings } from "../../served/server.ts";
import type { WantedAnswers, WantedSample } from "../child/served_samples.ts";
import { Journal, type JournalEntry } from "./journal.ts";
import { hiddenRowsOf, rowsOf } from "./rows.ts";

/** How a cache is filled. */
export interface FillServedOptions {
  /** Folder of caches, where the recipe names none. */
  readonly place: string;
  /** Plugin modules of the run: absolute paths, and packages with their version. */
  readonly plugins?: readonly string[];
  readonly patience?: Patience;
  /** Where the key is looked up; this process's environment by default. */
  readonly environment?: Environment;
  /** Asked before each request; true ends the work once those under way are answered. */
  readonly stopped?: () => boolean;
  /** Aborting it ends the work at once. */
  readonly signal?: AbortSignal;
  /** Samples that have their rows, of all; of one of several teachers with what that is called. */
  readonly onProgress?: (done: number, all: number, teacher?: string) => void;
  /** What is being done, in words. */
  readonly onStage?: (message: string) => void;
}

/** How the work is done where what is wanted is known. */
export type WorkOptions = Omit<FillServedOptions, "place" | "plugins">;

/** What came of it. */
export interface FilledServed {
  /** What the teacher is called; absent where it is the only one. */
  readonly teacher?: string;
  /** Folder of the cache. */
  readonly path: string;
  readonly samples: number;
  /** Samples that the server was asked about here. */
  readonly asked: number;
  /** Whether all is there; false where it was stopped. */
  readonly complete: boolean;
  /** What was used for this cache so far, by all who worked on it. */
  readonly used: { readonly requests: number; readonly tokens: number };
  readonly probe: Probe | undefined;
}

/** Samples whose rows make a shard. */
const SHARD_SAMPLES = 64;
/** Where in the folder of a cache what belongs to the server lies. */
export const SERVED = "served";
/** What was used; answers whose rows are not in the cache yet, and losses; what the server was found to be. */
const [USED, ANSWERS, PROBE] = ["used.jsonl", "answers.jsonl", "probe.json"];
/** How far log-probabilities of the probe may move between two looks: servers compute in 16 bits, in changing batches. */
const MOST_MOVED = 0.1;

/** Fills a cache; one process at a time does. */
export class Filling {
  readonly #folder: CacheFolder;
  readonly #wanted: WantedAnswers;
  readonly #server: ServerSettings;
  readonly #options: WorkOptions;
  readonly #names: TokenNames;
  readonly #format: PayloadFormat;
  #probe: Probe | undefined;
  #asked = 0;

  constructor(
    folder: CacheFolder,
    wanted: WantedAnswers,
    server: ServerSettings,
    options: WorkOptions,
  ) {
    [this.#folder, this.#wanted, this.#server, this.#options] = [folder, wanted, server, options];
    this.#names = namesOf(wanted.texts);
    this.#format = wanted.origin.format;
  }

  /** Likeliest tokens that are asked of each place: one for a look at the server where hidden states are kept. */
  get #top(): number {
    return keepsHidden(this.#format) ? 1 : this.#format.target.entries;
  }

  get #place(): string {
    return join(this.#folder.path, SERVED);
  }

  /** Whether all rows and the teacher's own losses are there. */
  async isComplete(): Promise<boolean> {
    if (this.#wanted.samples.some((sample) => this.#lacksRows(sample))) return false;
    return (await this.#unmeasured()).length === 0 && (await this.#withoutLoss()).length === 0;
  }

  /** Samples whose loss is to be kept, and is not. */
  async #withoutLoss(): Promise<WantedSample[]> {
    if (!this.#wanted.keepsLosses) return [];
    const kept = await keptLosses(this.#folder);
    return this.#wanted.samples.filter((sample) => {
      const key = lossKeyOf(sample);
      return key !== undefined && !kept.has(key);
    });
  }

  #lacksRows({ hash, positions }: WantedSample): boolean {
    return positions.length > 0 && this.#folder.entry(hash) === undefined;
  }

  /** Held-out sets on which the teacher's loss is not known. */
  async #unmeasured(): Promise<WantedAnswers["heldOut"]> {
    const found: WantedAnswers["heldOut"][number][] = [];
    for (const set of this.#wanted.heldOut) {
      if (await this.#folder.record(RECORDS.heldOut, set.id) === undefined) found.push(set);
    }
    return found;
  }

  async result(asked: number): Promise<FilledServed> {
    const path = join(this.#place, USED);
    const budget = await exists(path) ? Budget.open({}, path) : undefined;
    const used = budget?.used ?? { requests: 0, tokens: 0 };
    budget?.close();
    return {
      ...{ path: this.#folder.path, samples: this.#wanted.samples.length, asked, used, probe: this.#probe },
      complete: await this.isComplete(),
    };
  }

  /** Asks for what is missing. Nobody else does. */
  async fill(): Promise<FilledServed> {
    const { environment, patience, signal, onStage } = this.#options;
    await Deno.mkdir(this.#place, { recursive: true });
    using served = openServed(this.#server, {
      ...{ environment, patience, signal },
      usedFile: join(this.#place, USED),
      onRetry: (message) => onStage?.(message),
    });
    const { model } = served;
    const journal = new Journal(join(this.#place, ANSWERS));
    try {
      const writer = new CacheWriter(this.#folder);
      await this.#takeOver(journal, writer);
      const missing = await this.#missing(journal, writer);
      if (missing.length > 0) {
        this.#probe = await this.#know(model);
        onStage?.(`asking ${hostOf(this.#server)} about ${missing.length} samples`);
        await this.#askAll(model, missing, journal, writer);
      }
      await this.#measure(journal);
    } finally {
      journal.close();
    }
    const result = await this.result(this.#asked);
    if (result.complete) await Deno.remove(join(this.#place, ANSWERS));
    return result;
  }

  /** Puts what came before a kill into the cache. */
  async #takeOver(journal: Journal, writer: CacheWriter): Promise<void> {
    const byHash = new Map(this.#wanted.samples.map((sample) => [sample.hash, sample]));
    for (const { hash, rows } of journal.entries()) {
      const sample = byHash.get(hash);
      if (sample && rows !== undefined) await writer.put(sample, Uint8Array.fromBase64(rows));
    }
    await this.#flush(journal, writer);
  }

  async #flush(journal: Journal, writer: CacheWriter): Promise<void> {
    await writer.flush();
    journal.dropRows((hash) => this.#folder.entry(hash) !== undefined);
  }

  /** Samples without rows, and those of sets that are to be measured of which no loss has come. */
  async #missing(journal: Journal, writer: CacheWriter): Promise<WantedSample[]> {
    const measured = new Set([
      ...(await this.#unmeasured()).flatMap(({ hashes }) => hashes),
      ...(await this.#withoutLoss()).map(({ hash }) => hash),
    ]);
    return this.#wanted.samples.filter((sample) =>
      sample.positions.length > 0 && !writer.has(sample) ||
      measured.has(sample.hash) && lossIn(journal, sample) === undefined
    );
  }

  /**
   * Finds out what the server is like; or, where it was asked before, whether it is the same as then.
   *
   * @throws {InputError} it is not
   */
  async #know(model: ServedModel): Promise<Probe> {
    const path = join(this.#place, PROBE);
    const { probe } = this.#wanted;
    const top = this.#top;
    const known: Probe | undefined = await exists(path)
      ? JSON.parse(await Deno.readTextFile(path))
      : undefined;
    if (!known) {
      const found = await model.probe(probe, top, this.#names);
      await writeTextAtomically(path, JSON.stringify(found, null, 1) + "\n");
      return found;
    }
    const { own } = await model.score(probe.ids, {
      ...{ dialect: known.dialect, top, names: this.#names },
      text: sentText(probe.text, known, probe),
    });
    const moved = known.fingerprint.reduce((most, p, i) => Math.max(most, Math.abs(p - own[i + 1]!)), 0);
    if (moved <= MOST_MOVED) return known;
    throw new InputError(
      `gives other log-probabilities than when this cache was begun: they differ by ${moved.toFixed(2)} nats`,
      {
        where: hostOf(this.#server),
        hint:
          `Another model has taken its name. Remove ${this.#folder.path} to begin again with this one, or ask for the other.`,
      },
    );
  }

  /** Asks about samples, several at once. What is under way when something fails, or it is stopped, is waited for and kept. */
  async #askAll(
    model: ServedModel,
    missing: readonly WantedSample[],
    journal: Journal,
    writer: CacheWriter,
  ): Promise<void> {
    const { stopped, onProgress } = this.#options;
    const all = this.#wanted.samples.length;
    const left = missing.values();
    let failure: { error: unknown } | undefined;
    let waiting = 0;
    const store = async (sample: WantedSample) => {
      const rows = journal.get(sample.hash)?.rows;
      if (rows !== undefined) await writer.put(sample, Uint8Array.fromBase64(rows));
      if (++waiting % SHARD_SAMPLES === 0) await this.#flush(journal, writer);
    };
    // A shard is written while nothing is put into the next.
    let storing: Promise<void> = Promise.resolve();
    onProgress?.(all - missing.length, all);
    const work = async () => {
      for (const sample of left) {
        if (failure || stopped?.()) return;
        try {
          const { rows, loss } = await this.#ask(model, sample);
          journal.add({
            hash: sample.hash,
            ...(rows.length > 0 ? { rows: rows.toBase64() } : {}),
            ...lossEntry(sample, loss),
          });
          this.#asked++;
          onProgress?.(all - missing.length + this.#asked, all);
          await (storing = storing.then(() => store(sample)));
        } catch (error) {
          failure ??= { error };
        }
      }
    };
    await Promise.all(Array.from({ length: Math.min(this.#server.concurrency, missing.length) }, work));
    await this.#flush(journal, writer);
    if (failure) throw failure.error;
  }

  /** The rows of a sample, and the teacher's losses on it where they are wanted. */
  async #ask(
    model: ServedModel,
    sample: WantedSample,
  ): Promise<{ rows: Uint8Array<ArrayBuffer>; loss: number | undefined }> {
    const { ids, positions, measured, where } = sample;
    const format = this.#format;
    const known = this.#probe!;
    const text = sentText(sample.text, known, this.#wanted.probe);
    if (known.texts && text === undefined) {
      throw new InputError(
        "the server takes texts alone, and the tokens of this sample are not those that the tokenizer makes of its text",
        {
          where,
          hint: "Leave the row out, or ask a server that takes token ids, such as vLLM or another Limbeck.",
        },
      );
    }
    const asked = { dialect: known.dialect, top: this.#top, names: this.#names, text };
    const lossOf = (scores: PlaceScores) => measured?.reduce((sum, i) => sum - scores.own[i]!, 0);
    try {
      if (keepsHidden(format)) {
        const rows = hiddenRowsOf(sample, await model.hiddenStates(ids, format.width), format);
        return { rows, loss: measured ? lossOf(await model.score(ids, asked)) : undefined };
      }
      const scores = await model.score(ids, { ...asked, next: positions.at(-1) === ids.length - 1 });
      return { rows: rowsOf(sample, scores, format), loss: lossOf(scores) };
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      const hint = `This came of the sample ${where}. ${error.hint ?? ""}`.trim();
      throw Object.assign(error, { hint });
    }
  }

  /** Records the teacher's losses on samples, and on sets all of whose samples have been asked about. */
  async #measure(journal: Journal): Promise<void> {
    const found = (await this.#withoutLoss()).flatMap((sample) => {
      const loss = lossIn(journal, sample);
      return loss === undefined ? [] : [[lossKeyOf(sample)!, loss] as const];
    });
    await keepLosses(this.#folder, new Map(found));
    const byHash = new Map(this.#wanted.samples.map((sample) => [sample.hash, sample]));
    for (const { id, hashes } of await this.#unmeasured()) {
      const losses = hashes.map((hash) => lossIn(journal, byHash.get(hash)!));
      if (losses.some((loss) => loss === undefined)) continue;
      const tokens = hashes.reduce((sum, hash) => sum + byHash.get(hash)!.measured!.length, 0);
      const loss = losses.reduce((sum: number, loss) => sum + loss!, 0) / Math.max(1, tokens);
      await this.#folder.keep(RECORDS.heldOut, id, { loss, tokens });
    }
  }
}

/** Under which the loss on a sample is kept; undefined where it is not measured on it, or nothing of it counts. */
function lossKeyOf({ ids, measured }: WantedSample): string | undefined {
  return measured && measured.length > 0 ? lossKey(ids, measured) : undefined;
}

function lossEntry(sample: WantedSample, loss: number | undefined): Pick<JournalEntry, "loss" | "measured"> {
  const measured = lossKeyOf(sample);
  return loss === undefined ? {} : { loss, ...(measured === undefined ? {} : { measured }) };
}

/** What came of a sample as its loss; undefined where none did, or of other tokens. */
function lossIn(journal: Journal, sample: WantedSample): number | undefined {
  const entry = journal.get(sample.hash);
  const isOfOthers = entry?.measured !== undefined && entry.measured !== lossKeyOf(sample);
  return isOfOthers ? undefined : entry?.loss;
}

/** Ids by the texts of tokens; a text that several have names none. */
function namesOf(texts: readonly string[]): TokenNames {
  const ids = new Map<string, number>();
  texts.forEach((text, id) => ids.set(text, ids.has(text) ? -1 : id));
  return {
    idOf(name) {
      const id = ids.get(name);
      return id === undefined || id < 0 ? undefined : id;
    },
    isNameOf: (name, id) => texts[id] === name,
  };
}
