/** `limbeck cache`: made, found again, audited, refused. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { main } from "../../src/cli/main.ts";
import type { CacheAudit } from "../../src/distill/evaluate/audit_sums.ts";
import type { FilledCache } from "../../src/distill/run/fill_cache.ts";
import type { Estimate } from "../../src/distill/run/inspect_recipe.ts";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import { tinyRecipe, withTiny, writeTinyModel } from "../distill/tiny_model.ts";
import { runHere } from "../distill/tiny_run.ts";
import { fakeTerminal } from "./fake_terminal.ts";

Deno.test({
  name: "cache makes what a recipe keeps of its teacher, once, and audit tells what payloads cost",
  sanitizeResources: false,
  sanitizeOps: false,
  fn: () =>
    withTiny(async (files) => {
      const path = `${files.folder}/recipe.json`;
      const { output: _, ...recipe } = tinyRecipe(files, { objective: [{ loss: "forward-kl" }] });
      await Deno.writeTextFile(path, JSON.stringify(recipe));
      const run = async (...args: string[]) => {
        const terminal = fakeTerminal();
        const code = await main(args, terminal);
        return { code, out: terminal.out, err: terminal.err };
      };
      const set = (value: string) => ["--set", `teacher.cache=${value}`];
      const kept = set(`{payload: hidden, precision: int8, folder: ${files.folder}/caches}`);
      const made = await run("cache", path, ...kept, "--json");
      assertEquals(made.code, 0, made.err);
      const first = JSON.parse(made.out) as FilledCache;
      // A scale and 32 codes.
      assertEquals([first.samples, first.made, first.bytesPerToken], [46, 46, 36]);
      assertEquals(first.cacheBytes % 36, 0);
      const again = await run("cache", path, ...kept);
      assertStringIncludes(again.err + again.out, "all rows are there");
      assertStringIncludes(again.out, "36 bytes a token that counts");
      const found = JSON.parse((await run("cache", path, ...kept, "--json")).out) as FilledCache;
      assertEquals([found.made, found.identity, found.heldOut], [0, first.identity, first.heldOut]);
      // Other data share samples with these.
      const rows = await Deno.readTextFile(files.train);
      await Deno.writeTextFile(files.train, `{"text": "cat and sun"}\n${rows}`);
      assertEquals((JSON.parse((await run("cache", path, ...kept, "--json")).out) as FilledCache).made, 1);

      const estimate = JSON.parse((await run("estimate", path, ...kept, "--json")).out) as Estimate;
      const sizes = Object.fromEntries(estimate.payloads.map((p) => [p.payload, p.bytesPerToken]));
      assertEquals(sizes["{payload: hidden, precision: int8}"], estimate.teacherPass!.bytesPerToken);
      assertEquals(sizes["{payload: hidden, precision: f32}"], 4 * 32);
      assert(!("{topK: 256}" in sizes) && sizes["{topK: 64}"] === 4 + 64 * 4);

      const audit = JSON.parse(
        (await run("cache", "audit", path, "--tokens", "4", "--json")).out,
      ) as CacheAudit;
      assertEquals([audit.tokens, audit.losses[0]!.name], [4, "forward-kl"]);
      const told = await run("cache", "audit", path, "--tokens", "2");
      assertStringIncludes(told.out, "2 held-out tokens");
      assertStringIncludes(told.out, "{topK: 64}");

      // Without a folder it lies where the runs of a data folder look for it.
      const shared = await run("cache", path, ...set("{topK: 4}"), "--data", `${files.folder}/data`);
      assertStringIncludes(shared.out, "data/teacher-caches/");
      assertStringIncludes((await run("cache", path)).err, "the recipe keeps nothing of its teacher");
      const odd = await run("cache", "audlt", path);
      assertEquals(odd.code, 2);
      assertStringIncludes(odd.err, "did you mean");
    }),
});

Deno.test({
  name: "the caches of several teachers are made with what the best of each sample is, and a run finds both",
  sanitizeResources: false,
  sanitizeOps: false,
  fn: () =>
    withTiny(async (files) => {
      const [other, folder] = [`${files.folder}/other`, `${files.folder}/caches`];
      await writeTinyModel(other, { layers: 1, seed: 2 });
      const recipe = tinyRecipe(files, {
        teacher: {
          combine: "best",
          teachers: [
            { model: files.teacher, name: "a", cache: { topK: 4, folder } },
            { model: other, name: "b", cache: { payload: "hidden", precision: "f32", folder } },
          ],
        },
        student: { model: files.teacher },
        objective: [{ loss: "forward-kl" }],
        train: { steps: 1, evaluateEvery: 0 },
      });
      const path = `${files.folder}/recipe.json`;
      const { output: _, ...written } = recipe;
      await Deno.writeTextFile(path, JSON.stringify(written));
      const run = async (...args: string[]) => {
        const terminal = fakeTerminal();
        assertEquals(await main(args, terminal), 0, terminal.err);
        return terminal;
      };
      const told = await run("cache", path);
      assertStringIncludes(told.out + told.err, "measuring the teacher b on 46 samples");
      assertStringIncludes(told.out, "b: ");
      const again = JSON.parse((await run("cache", path, "--json")).out) as { teachers: FilledCache[] };
      const [a, b] = again.teachers as [FilledCache, FilledCache];
      assertEquals([a.teacher, b.teacher, a.samples + b.samples, a.made, b.made], ["a", "b", 46, 0, 0]);
      assertEquals(b.bytesPerToken, 4 * 32);
      const { teacherPass } = JSON.parse((await run("estimate", path, "--json")).out) as Estimate;
      // Nobody knows the choice before: as if all were of the larger rows.
      assertEquals(teacherPass!.bytesPerToken, b.bytesPerToken);
      assert(teacherPass!.cacheBytes >= a.cacheBytes + b.cacheBytes);

      const events: RunEventBody[] = [];
      await runHere(recipe, `${files.folder}/run`, {}, events);
      const stages = events.flatMap((e) => e.type === "stage" ? [e.message] : []).join("\n");
      assertEquals(stages.match(/using the teacher's cache/g)?.length, 2);
      assert(!/measuring the teacher |running the teacher/.test(stages), stages);

      const audited = JSON.parse((await run("cache", "audit", path, "--tokens", "2", "--json")).out) as {
        teachers: (CacheAudit & { teacher: string })[];
      };
      // Of a teacher without held-out samples nothing is told of them.
      const tag = async (path: string, name: (i: number) => string) => {
        const rows = (await Deno.readTextFile(path)).trim().split("\n").map((row) => JSON.parse(row));
        const tagged = rows.map((row, i) => JSON.stringify({ ...row, teacher: name(i) }) + "\n");
        await Deno.writeTextFile(path, tagged.join(""));
      };
      await tag(files.train, (i) => "ab"[i % 2]!);
      await tag(files.heldOut, () => "a");
      const byTag = (await run("cache", path, "--set", "teacher.combine=tag")).out;
      assertMatch(
        byTag,
        /a: 26 samples: [^\n]*\nThe teacher's loss on heldout: [^\n]*\nIn [^\n]*\nb: 20 samples: [^\n]*\nIn /,
      );

      assertEquals(audited.teachers.map(({ teacher, tokens }) => [teacher, tokens]), [["a", 2], ["b", 2]]);
    }, { layers: 1 }),
});
