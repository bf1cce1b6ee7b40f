/** Runs whose teacher has a tokenizer of its own: measured against logits in f64, resumed, and refused where they make no sense. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertLess, assertRejects } from "@std/assert";
import mappedLogitGroups from "../../plugins/losses/mapped_logit_groups.ts";
import universalLogitGroups from "../../plugins/losses/universal_logit_groups.ts";
import { prepareRun } from "../../src/distill/inputs/prepare.ts";
import { countedGroups } from "../../src/distill/objective/groups/places.ts";
import { InputError } from "../../src/base/errors.ts";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import { packOther, packSequential } from "../../src/text/packing.ts";
import { groupTerm, referenceGroups } from "../losses/group_cases.ts";
import { testGpu } from "../tensor/harness.ts";
import { Reader } from "./logits.ts";
import { type RecipeChanges, type TinyFiles, tinyRecipe, withTiny, writeTinyModel } from "./tiny_model.ts";
import { runHere } from "./tiny_run.ts";

/** The student knows other pieces of words than the teacher, and fewer. */
const MERGES = [["t", "h"], ["th", "e"], ["a", "t"], ["o", "n"], ["u", "n"], ["e", " "]];

async function withStudent(fn: (files: TinyFiles & { student: string }) => Promise<void>): Promise<void> {
  await withTiny(async (files) => {
    const student = `${files.folder}/student`;
    await writeTinyModel(student, { merges: MERGES, layers: 2, seed: 7 });
    await fn({ ...files, student });
  });
}

function alignedRecipe(files: TinyFiles & { student: string }, changes: RecipeChanges = {}) {
  return tinyRecipe(files, {
    ...changes,
    teacher: { align: { by: "bytes" }, ...changes.teacher },
    student: { model: files.student },
    train: { steps: 8, accumulation: 2, checkpointEvery: 3, ...changes.train },
  });
}

Deno.test({
  name: "a run across tokenizers measures what logits in f64 give, learns, and resumes bit for bit",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: () =>
    withStudent(async (files) => {
      const recipe = alignedRecipe(files);
      assertEquals(recipe.objective.map(({ loss }) => loss), ["cross-entropy", "universal-logit-groups"]);
      const events: RunEventBody[] = [];
      const whole = `${files.folder}/whole`;
      const result = await runHere(recipe, whole, {}, events);
      assertEquals(result.status, "succeeded");
      assertEquals(result.peakBytes.planned, result.peakBytes.allocated);

      const prepared = await prepareRun(recipe);
      const length = 64;
      try {
        const gpu = await testGpu();
        using student = await Reader.open(gpu, prepared.student, length);
        using teacher = await Reader.open(gpu, prepared.teacher, length);
        const term = groupTerm(universalLogitGroups, {});
        let [groups, sum, nats, bytes, ofTeacher] = [0, 0, 0, 0, 0];
        for (const sample of prepared.heldOut) {
          const other = sample.other!;
          const rows = async (reader: Reader, ids: Int32Array, width: number) => {
            const flat = Float64Array.from(await reader.logits(ids));
            return Array.from(ids, (_, t) => flat.slice(t * width, (t + 1) * width));
          };
          const own = await rows(student, sample.ids, prepared.student.config.vocabularySize);
          const others = await rows(teacher, other.ids, prepared.teacher.config.vocabularySize);
          const { values } = referenceGroups({
            ...{ name: "held out", student: own, teacher: others, sample, teacherOf: new Int32Array() },
          }, term);
          assertEquals(values.length, countedGroups(sample, "chain").length);
          groups += values.length;
          sum += values.reduce((a, b) => a + b, 0);
          nats += crossEntropy(own, sample);
          ofTeacher += crossEntropy(others, other);
          // Printable ASCII: a byte for each character of the targets; the tokens that end texts have none.
          const text = (ids: Int32Array) => prepared.tokenizer.decode(ids, { skipSpecial: true }).length;
          bytes += text(sample.ids) - text(sample.ids.subarray(0, sample.supervised.indexOf(1)));
        }
        assert(groups > 40, `only ${groups} groups`);
        const [first, second] = evaluations(events);
        assertEquals([first!.model, second!.model], ["teacher", "student"]);
        assertAlmostEquals(second!.losses["universal-logit-groups"]!, sum / groups, 2e-5);
        assertAlmostEquals(second!.losses["bits-per-byte"]!, nats / Math.LN2 / bytes, 2e-5);
        assertAlmostEquals(first!.losses["bits-per-byte"]!, ofTeacher / Math.LN2 / bytes, 2e-5);
        assertEquals(second!.losses["forward-kl"], undefined);
        assertEquals(result.bitsPerByte!.teacher, first!.losses["bits-per-byte"]);
        assertEquals(result.bitsPerByte!.before, second!.losses["bits-per-byte"]);
        const after = evaluations(events).at(-1)!.losses;
        assertLess(after["universal-logit-groups"]!, second!.losses["universal-logit-groups"]!);
        assertEquals(result.bitsPerByte!.after, after["bits-per-byte"]);
      } finally {
        prepared.close();
      }

      const parts = `${files.folder}/parts`;
      const stopped = await runHere(recipe, parts, { control: (step) => step === 4 ? "stop" : "run" });
      assertEquals(stopped.status, "paused");
      assertEquals(
        await runHere(recipe, parts, { resume: true }).then((r) => r.bitsPerByte),
        result.bitsPerByte,
      );
      const adapter = "adapter/adapter_model.safetensors";
      assertEquals(await Deno.readFile(`${parts}/${adapter}`), await Deno.readFile(`${whole}/${adapter}`));
    }),
});

function evaluations(events: readonly RunEventBody[]) {
  return events.filter((event) => event.type === "evaluation");
}

/** Nats of all targets together. */
function crossEntropy(
  logits: readonly Float64Array[],
  { ids, supervised }: { readonly ids: Int32Array; readonly supervised: Uint8Array },
): number {
  let nats = 0;
  for (let i = 1; i < ids.length; i++) {
    if (!supervised[i]) continue;
    const z = logits[i - 1]!;
    const high = Math.max(...z);
    nats += high + Math.log(z.reduce((sum, x) => sum + Math.exp(x - high), 0)) - z[ids[i]!]!;
  }
  return nats;
}

Deno.test("micro-batches hold the same samples for both models, and both sides fit", () =>
  withStudent(async (files) => {
    const prepared = await prepareRun(alignedRecipe(files));
    try {
      const { data } = prepared.aligned!;
      assert(data.longest > 10 && data.ratio < 1 && data.ratio > 0.5, JSON.stringify(data));
      const tokens = data.longest;
      const batches = packSequential(prepared.train, 64, tokens);
      assertEquals(batches.flatMap(({ members }) => members), prepared.train);
      for (const { members } of batches) packOther(members, tokens);
      assert(batches.length > packSequential(prepared.train, 64).length, "the second limit was never met");
    } finally {
      prepared.close();
    }
  }));

Deno.test("what two tokenizers rule out is refused with what would do", () =>
  withStudent(async (files) => {
    const refuse = async (changes: RecipeChanges, message: string | RegExp, hint: string) => {
      const error = await assertRejects(async () => {
        const { setUp } = await import("../../src/distill/run/set_up.ts");
        const { Registry } = await import("../../src/registry/registry.ts");
        const { builtins } = await import("../../plugins/mod.ts");
        const prepared = await prepareRun(alignedRecipe(files, changes));
        try {
          setUp(prepared, new Registry().addAll(builtins));
        } finally {
          prepared.close();
        }
      }, InputError);
      assert(new RegExp(message).test(error.message), error.message);
      assert(error.hint?.includes(hint) ?? error.message.includes(hint), `${error.message}: ${error.hint}`);
    };
    await refuse({ teacher: { align: undefined } }, "different vocabularies: token", "teacher.align");
    await refuse(
      { objective: [{ loss: "cross-entropy" }, { loss: "forward-kl" }] },
      '"forward-kl" compares the two models position by position',
      "universal-logit-groups",
    );
    await refuse(
      { objective: [{ loss: "cross-entropy" }, { loss: "hidden-state-mse" }] },
      '"hidden-state-mse" compares',
      "hybrid-logit-groups",
    );
    await refuse(
      { objective: [{ loss: "universal-logit-groups", tokens: "all" }] },
      "cannot have tokens",
      "Leave it out",
    );
    await refuse({ train: { onPolicy: {} } }, "train.onPolicy: cannot be had with teacher.align", "");
    await refuse({ teacher: { cache: { topK: 4 } } }, "teacher.align: cannot be had with teacher.cache", "");
  }));

Deno.test({
  name: "a teacher's distributions are mapped token by token, as FuseLLM does, and measured so",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: () =>
    withStudent(async (files) => {
      const recipe = alignedRecipe(files, {
        teacher: { align: { by: "edit-distance", vocabulary: "nearest" } },
        objective: [{ loss: "cross-entropy", weight: 0.9 }, { loss: "mapped-logit-groups", weight: 0.1 }],
        train: { steps: 2, checkpointEvery: 0 },
      });
      const events: RunEventBody[] = [];
      assertEquals((await runHere(recipe, `${files.folder}/mapped`, {}, events)).status, "succeeded");
      const prepared = await prepareRun(recipe);
      try {
        const gpu = await testGpu();
        using student = await Reader.open(gpu, prepared.student, 64);
        using teacher = await Reader.open(gpu, prepared.teacher, 64);
        const { match, near } = prepared.aligned!;
        assertEquals(near, 0, "all tokens of this teacher that are long enough are the student's too");
        const term = groupTerm(mappedLogitGroups, {});
        const rows = async (reader: Reader, ids: Int32Array, width: number) => {
          const flat = Float64Array.from(await reader.logits(ids));
          return Array.from(ids, (_, t) => flat.slice(t * width, (t + 1) * width));
        };
        const width = prepared.student.config.vocabularySize;
        let [count, sum, apart] = [0, 0, 0];
        for (const sample of prepared.heldOut) {
          const own = await rows(student, sample.ids, width);
          const others = await rows(teacher, sample.other!.ids, prepared.teacher.config.vocabularySize);
          const teacherOf = match.slice(0, width);
          const one = { name: "held out", student: own, teacher: others, sample, teacherOf };
          const { values } = referenceGroups(one, term);
          count += values.length;
          sum += values.reduce((a, b) => a + b, 0);
          apart += countedGroups(sample, "mapped").filter(({ other }) => !other).length;
        }
        assertEquals(
          count,
          prepared.heldOut.reduce((n, { supervised }) => n + supervised.reduce((a, b) => a + b, 0), 0),
        );
        assert(apart > 5 && apart < count - 5, `${apart} of ${count} stand alone`);
        const before = evaluations(events).find(({ model }) => model === "student")!;
        assertAlmostEquals(before.losses["mapped-logit-groups"]!, sum / count, 2e-5);
      } finally {
        prepared.close();
      }
    }),
});
