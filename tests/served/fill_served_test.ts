/** Caches of teachers behind servers, filled while things go wrong. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { type FilledServed, type FillServedOptions, fillWanted } from "../../src/runs/served/fill_served.ts";
import { type WantedAnswers, wantedAnswers } from "../../src/runs/child/served_samples.ts";
import { BudgetError } from "../../src/served/budget.ts";
import { ServedError, ServedRefusal } from "../../src/served/server.ts";
import { CacheFolder } from "../../src/distill/teacher/cache_folder.ts";
import { RowCodec, type RowFormat } from "../../src/distill/teacher/cached_rows.ts";
import { openFile } from "../../src/formats/files.ts";
import { InputError } from "../../src/base/errors.ts";
import { parseRecipe, RecipeError } from "../../src/distill/recipe/parse.ts";
import { openRecipe } from "../../src/distill/run/open_recipe.ts";
import { estimate } from "../../src/distill/run/inspect_recipe.ts";
import { Registry } from "../../src/registry/registry.ts";
import { builtins } from "../../plugins/mod.ts";
import {
  type RecipeChanges,
  TINY_VOCABULARY,
  tinyRecipe,
  tinyTokenizerJson,
  withTiny,
} from "../distill/tiny_model.ts";
import { withFolder } from "../runs/fake_run.ts";
import { TextTokenizer } from "../../src/text/tokenizer.ts";
import { fakeLogProbabilities, type FakeOptions, type FakeServer, fakeServer } from "./fake_server.ts";

const TOP = 6;
const tokenizer = TextTokenizer.fromJson(
  tinyTokenizerJson(),
  { bos_token: "<s>", eos_token: "</s>", unk_token: "<unk>", add_bos_token: true },
  "tiny",
);
const patience = { tries: 12, pause: 1, longestPause: 200 };

let known: Promise<WantedAnswers> | undefined;

/** What the recipe of every test wants, found once. */
function wantedOnce(): Promise<WantedAnswers> {
  return known ??= new Promise((resolve, reject) =>
    void withTiny(async (files) => {
      const recipe = tinyRecipe(files, servedChanges(files.teacher, "http://127.0.0.1:9/v1", "/nowhere"));
      resolve((await wantedAnswers({ recipe, place: "/nowhere" }))[0]!);
    }).catch(reject)
  );
}

interface Test {
  readonly folder: string;
  readonly server: FakeServer;
  readonly wanted: WantedAnswers;
  fill(
    change?: { server?: object; wanted?: WantedAnswers; options?: Partial<FillServedOptions> },
  ): Promise<FilledServed>;
}

function withServed(fake: Partial<FakeOptions>, fn: (test: Test) => Promise<void>): Promise<void> {
  return withFolder(async (folder) => {
    const server = fakeServer({
      vocabulary: TINY_VOCABULARY,
      encode: (text) => [...tokenizer.encode(text)],
      ...fake,
    });
    const wanted = { ...await wantedOnce(), place: `${folder}/caches` };
    const settings = { url: server.url, model: "m", concurrency: 4, timeoutSeconds: 60 };
    try {
      await fn({
        ...{ folder, server, wanted },
        fill: ({ server = {}, options = {}, ...change } = {}) =>
          fillWanted(change.wanted ?? wanted, { ...settings, ...server }, { patience, ...options }),
      });
    } finally {
      await server.close();
    }
  });
}

function servedChanges(student: string, url: string, folder: string, change: object = {}): RecipeChanges {
  return {
    teacher: {
      model: "server",
      server: { url, model: "m", ...change },
      cache: { topK: TOP, precision: "f32", folder },
    },
    student: { model: student, layers: [0, 2] },
  };
}

/** Fails unless a cache holds what the fake model says of every position. */
async function holdsAll({ wanted }: Test): Promise<void> {
  const folder = await CacheFolder.open(wanted.place, wanted.origin);
  const format = wanted.origin.format as RowFormat;
  const codec = new RowCodec(format);
  let rows = 0;
  for (const { hash, ids, positions } of wanted.samples) {
    const entry = folder.entry(hash)!;
    const file = await openFile(entry.shard);
    const { buffer } = await file.read(entry.begin, entry.bytes);
    file.close?.();
    const feed = codec.feed(positions.length);
    positions.forEach((t, i) => {
      feed.read(buffer, i * codec.bytes, i);
      const all = fakeLogProbabilities(TINY_VOCABULARY, ids.slice(0, t + 1));
      const order = [...all.keys()].sort((a, b) => all[b]! - all[a]!);
      const [found, logits, tails] = ["ids", "logits", "tails"].map((part) =>
        feed.inputs.get(`cached.${part}`)
      );
      assertEquals([...found!.slice(i * TOP, (i + 1) * TOP)], order.slice(0, TOP));
      const rest = Math.log(order.slice(TOP).reduce((sum, id) => sum + Math.exp(all[id]!), 0)) -
        all[order[0]!]!;
      assert(Math.abs(tails![i]! - rest) < 1e-5, `${tails![i]}, not ${rest}`);
      order.slice(0, TOP).forEach((id, k) =>
        assert(Math.abs(logits![i * TOP + k]! - (all[id]! - all[order[0]!]!)) < 1e-6)
      );
      rows++;
    });
  }
  assert(rows > 100, `${rows} rows`);
  // The teacher's own loss on the held-out set.
  for (const { id, hashes } of wanted.heldOut) {
    const record = await folder.record<{ loss: number; tokens: number }>("held-out", id);
    let [loss, tokens] = [0, 0];
    for (const hash of hashes) {
      const { ids, measured } = wanted.samples.find((sample) => sample.hash === hash)!;
      for (const i of measured!) {
        loss -= fakeLogProbabilities(TINY_VOCABULARY, ids.slice(0, i))[ids[i]!]!;
        tokens++;
      }
    }
    assertEquals(record!.tokens, tokens);
    assert(Math.abs(record!.loss - loss / tokens) < 1e-6);
  }
}

Deno.test("a cache is filled through refusals, errors and cut connections, and nothing is asked twice", () =>
  withServed({
    fault: (n) =>
      n % 5 === 1
        ? { status: 429, retryAfter: 0.01 }
        : n % 7 === 3
        ? "cut"
        : n % 11 === 4
        ? { status: 500 }
        : undefined,
  }, async (test) => {
    let stopAfter = 12;
    const said: string[] = [];
    const first = await test.fill({
      options: { stopped: () => stopAfter-- <= 0, onStage: (message) => said.push(message) },
    });
    assert(!first.complete && first.asked > 3 && first.asked < first.samples);
    assertStringIncludes(said.join("\n"), "answers 429");
    const second = await test.fill();
    assert(second.complete);
    assertEquals(first.asked + second.asked, second.samples);
    assertEquals(second.used.requests, test.server.seen.length);
    assertEquals(second.used.tokens, test.server.charged());
    await holdsAll(test);
    const before = test.server.seen.length;
    const third = await test.fill();
    assertEquals([third.complete, third.asked, test.server.seen.length], [true, 0, before]);
  }));

Deno.test("a budget ends the work where it is used up, to the token, and more of it goes on from there", () =>
  withServed({}, async (test) => {
    const limit = { budget: { tokens: 400 } };
    const error = await assertRejects(
      () => test.fill({ server: limit }),
      BudgetError,
      "the budget allows 400 tokens",
    );
    assertStringIncludes(error.hint!, "teacher.server.budget.tokens");
    const charged = test.server.charged();
    assert(charged <= 400 && charged > 300, `${charged}`);
    // Nothing is sent that cannot be paid for, however often it is begun again.
    const sent = test.server.seen.length;
    await assertRejects(() => test.fill({ server: limit }), BudgetError);
    assert(test.server.charged() <= 400);
    const done = await test.fill({ server: { budget: { requests: 1000 } } });
    assertEquals([done.complete, done.used.tokens], [true, test.server.charged()]);
    assert(test.server.seen.length > sent);
    await holdsAll(test);
  }));

Deno.test("answers that cannot be used end the work with the sample's line, and what came before stays", async () => {
  for (
    const [fault, words] of [
      ["nan", "NaN or Infinity"],
      ["other tokens", "other tokens than were sent"],
      ["fewer", "where 6 were asked for"],
      ["shorter", "tokens where"],
    ] as const
  ) {
    await withServed({ fault: (n) => n === 12 ? fault : undefined }, async (test) => {
      const error = await assertRejects(() => test.fill(), ServedRefusal, words);
      if (fault !== "nan") assertStringIncludes(error.hint!, "jsonl:");
      const before = test.server.seen.length;
      const after = await test.fill();
      assert(after.complete);
      assert(test.server.seen.length - before < after.samples, "what came before is not asked again");
    });
  }
});

Deno.test("a wrong tokenizer, another model of the same name, and a server that is gone are told before anything is kept", async () => {
  await withServed(
    { encode: (text) => [...tokenizer.encode(text)].map((id) => (id + 1) % TINY_VOCABULARY) },
    async (test) => {
      await assertRejects(() => test.fill(), ServedRefusal, "makes other tokens of a text");
      assertEquals(test.server.seen.length, 3);
    },
  );
  await withServed({ vocabulary: TINY_VOCABULARY + 40 }, async (test) => {
    await assertRejects(() => test.fill(), InputError, "tokens that the student does not have");
  });
  let isOther = false;
  await withServed(
    { scales: true, fault: (_, body) => void (isOther && (body.temperature = 3)) },
    async (test) => {
      let left = 8;
      await test.fill({ options: { stopped: () => left-- <= 0 } });
      isOther = true;
      await assertRejects(
        () => test.fill(),
        InputError,
        "other log-probabilities than when this cache was begun",
      );
    },
  );
  await withServed({ fault: () => ({ status: 503 }) }, async (test) => {
    const error = await assertRejects(() => test.fill(), ServedError, "answers 503");
    assertStringIncludes(error.hint!, "kept");
  });
});

Deno.test("a kill loses what was under way, and nothing else", () =>
  withServed({}, async (test) => {
    const copy = `${test.folder}/killed`;
    let left = 20;
    const options = {
      stopped() {
        // What lies on the disk at this moment is what a kill leaves.
        if (--left === 0) copyFolder(test.wanted.place, copy);
        return left < -3;
      },
    };
    await test.fill({ options });
    const [cache] = [...Deno.readDirSync(copy)];
    const journal = `${copy}/${cache!.name}/served/answers.jsonl`;
    const kept = Deno.readTextFileSync(journal).trim().split("\n").length;
    assert(kept >= 19 - 4, `${kept} answers were kept`);
    // It was cut in the middle of a line.
    await Deno.writeTextFile(journal, '{"hash":"ab', { append: true });
    const before = test.server.seen.length;
    const wanted = { ...test.wanted, place: copy };
    const after = await test.fill({ wanted });
    assertEquals([after.complete, after.asked], [true, after.samples - kept]);
    // One more than it asks about samples: whether the server is still the same.
    assertEquals(test.server.seen.length - before, after.asked + 1);
    await holdsAll({ ...test, wanted });
  }));

function copyFolder(from: string, to: string): void {
  Deno.mkdirSync(to, { recursive: true });
  for (const { name, isDirectory } of Deno.readDirSync(from)) {
    if (isDirectory) copyFolder(`${from}/${name}`, `${to}/${name}`);
    else Deno.copyFileSync(`${from}/${name}`, `${to}/${name}`);
  }
}

Deno.test("two that fill one cache at once ask for each sample once", () =>
  withServed({}, async (test) => {
    const [a, b] = await Promise.all([test.fill(), test.fill()]);
    assert(a.complete && b.complete);
    assertEquals(a.asked + b.asked, a.samples);
    await holdsAll(test);
  }));

Deno.test("a key is read from the environment that the recipe names, and stands in no file", () =>
  withServed({ key: "secret-key" }, async (test) => {
    await assertRejects(() => test.fill(), ServedRefusal, "answers 401");
    const server = { keyVariable: "LIMBECK_KEY_TEST" };
    await assertRejects(
      () => test.fill({ server, options: { environment: () => undefined } }),
      ServedRefusal,
      "LIMBECK_KEY_TEST: is not set",
    );
    await test.fill({ server, options: { environment: () => "secret-key" } });
    const files = new TextDecoder("latin1");
    for await (const path of filesIn(test.folder)) {
      assert(!files.decode(await Deno.readFile(path)).includes("secret-key"), path);
    }
  }));

async function* filesIn(folder: string): AsyncGenerator<string> {
  for await (const entry of Deno.readDir(folder)) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory) yield* filesIn(path);
    else if (entry.isFile) yield path;
  }
}

Deno.test("what a recipe of a served teacher lacks or cannot have is told by its field", () => {
  const base = (teacher: object, rest: object = {}) =>
    parseRecipe({
      teacher: { model: "server", cache: { topK: 5 }, ...teacher },
      student: { model: "./student" },
      data: { train: "train.jsonl" },
      ...rest,
    });
  const server = { url: "https://host/v1", model: "m" };
  const recipe = base({ server });
  assertEquals([recipe.teacher.server!.concurrency, recipe.teacher.server!.timeoutSeconds], [4, 300]);
  const refused = (teacher: object, path: string, words: string, rest: object = {}) => {
    try {
      base(teacher, rest);
    } catch (error) {
      assert(error instanceof RecipeError, String(error));
      const found = error.problems.find((problem) => problem.path === path);
      assert(found, `${path} of ${error.message}`);
      return assertStringIncludes(found.message, words);
    }
    throw new Error(`${path} was taken`);
  };
  refused({}, "teacher.server", "is missing");
  refused({ server, model: "./m" }, "teacher.server", "is not `server`");
  refused({ server: { ...server, url: "http://host/v1" } }, "teacher.server.url", "in the clear");
  refused({ server: { ...server, key: "abc" } }, "teacher.server.key", "");
  refused({ server, quantize: "nf4" }, "teacher.quantize", "behind a server");
  refused({ server, stream: true }, "teacher.stream", "behind a server");
  refused({ server, train: true }, "teacher.train", "behind a server");
  refused({ server, cache: undefined }, "teacher.cache", "topK: 20");
  refused({ server, cache: { samples: 5 } }, "teacher.cache", "topK: 20");
  refused({ server }, "student.model", "behind a server", { student: { model: "teacher" } });
});

Deno.test("a served teacher is validated and estimated without being asked, and other temperatures are refused", () =>
  withTiny(async (files) => {
    const changes = servedChanges(files.teacher, "http://127.0.0.1:9/v1", `${files.folder}/caches`, {
      requestsPerMinute: 10,
      budget: { requests: 3 },
    });
    const registry = new Registry().addAll(builtins);
    await openRecipe(tinyRecipe(files, changes), registry, async (opened) => {
      const { served, teacherPass, payloads } = await estimate(opened, false);
      assertEquals([teacherPass, payloads], [null, []]);
      const samples = opened.prepared.train.length + opened.prepared.heldOut.length;
      assert(served!.requests <= samples && served!.requests > samples / 2);
      assertEquals([served!.minutes, served!.withinBudget], [served!.requests / 10, false]);
      assert(served!.cacheBytes > 0);
    });
    const warm = { ...changes, objective: [{ loss: "forward-kl", temperature: 2 }] };
    await assertRejects(
      () => openRecipe(tinyRecipe(files, warm), registry, () => {}),
      InputError,
      "recipe objective.0.temperature",
    );
  }));

Deno.test("a server that takes texts alone fills a cache with the same rows, or the sample is named", () =>
  withServed({
    ...{ textsOnly: true, dialects: ["echo"] },
    encode: (text) => [...tokenizer.encode(text, { special: true })],
  }, async (test) => {
    const { complete, probe } = await test.fill();
    assertEquals([complete, probe!.texts, probe!.addsBos], [true, { writesBos: false }, true]);
    await holdsAll(test);
    assert(test.server.seen.slice(2).every(({ prompt }) => typeof prompt === "string"));

    // Tokens that no text has: two that a merge makes one.
    const [first, ...others] = test.wanted.samples;
    const { text: _text, ...bare } = first!;
    const wanted = { ...test.wanted, place: `${test.folder}/other`, samples: [{ ...bare }, ...others] };
    const error = await assertRejects(() => test.fill({ wanted }), InputError, "takes texts alone");
    assertStringIncludes(error.where!, "train.jsonl:");
  }));
