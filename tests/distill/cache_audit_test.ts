/** What payloads cost, as an audit tells it: against the reference of cached targets, the identity of the tail, and the bounds. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { builtins } from "../../plugins/mod.ts";
import { AuditSums } from "../../src/distill/evaluate/audit_sums.ts";
import { auditCache } from "../../src/distill/evaluate/cache_audit.ts";
import { prepareRun } from "../../src/distill/inputs/prepare.ts";
import { setUp } from "../../src/distill/run/set_up.ts";
import { logSoftmax, referenceRow } from "../../src/losses/reference.ts";
import { referenceSparseRow } from "../../src/losses/sparse_reference.ts";
import type { SparseTarget } from "../../src/losses/sparse_target.ts";
import type { ResolvedLoss } from "../../src/losses/traced.ts";
import type { Divergence } from "../../src/registry/contract.ts";
import { Registry } from "../../src/registry/registry.ts";
import { topOf } from "../losses/sparse_rows.ts";
import { modelTest, randomArray } from "../tensor/harness.ts";
import { TINY_VOCABULARY, tinyRecipe, withTiny } from "./tiny_model.ts";

const BOUNDED = [
  "forward-kl",
  "soft-cross-entropy",
  "jensen-shannon",
  "total-variation",
  "skew-kl",
  "skew-reverse-kl",
];

function term(id: string, temperature: number, options = {}): ResolvedLoss {
  const loss = builtins.find((plugin) => plugin.id === id) as Divergence;
  const name = `${id} ${temperature} ${JSON.stringify(options)}`;
  return { loss, options: loss.options.parse(options), name, weight: 0, temperature, monitor: true };
}

const TERMS = [
  ...[...BOUNDED, "reverse-kl", "decoupled-kd"].flatMap((id) => [term(id, 1), term(id, 2)]),
  term("jensen-shannon", 1, { beta: 0.2, normalize: true }),
  term("skew-kl", 1, { lambda: 0.6 }),
  term("centred-logit-mse", 1),
];

/** Rows of logits, from nearly flat to nearly certain. */
function rowsOf(vocabulary: number): [student: Float64Array, teacher: Float64Array, label: number][] {
  return [0.1, 1, 4, 12].map((scale, i) => [
    Float64Array.from(randomArray(vocabulary, 2 * i + 1, scale)),
    Float64Array.from(randomArray(vocabulary, 2 * i + 2, 4)),
    (7 * i) % vocabulary,
  ]);
}

Deno.test("an audit finds of each token what the reference of cached targets finds, and no more than its bounds", () => {
  const [vocabulary, sizes] = [37, [1, 5, 36, 37]];
  for (const [student, teacher, label] of rowsOf(vocabulary)) {
    const sums = new AuditSums(TERMS, sizes, { hiddenSize: 8, vocabularySize: vocabulary });
    const rows = { student: [student], f32: [teacher], bf16: [teacher], int8: [student] };
    sums.add(rows, 0, label);
    const { losses, tokens } = sums.result();
    assertEquals(tokens, 1);
    const exact = referenceRow(TERMS, student, teacher, label).values;
    losses.forEach(({ payloads, value }, k) => {
      assertAlmostEquals(value, exact[k]!, 1e-12);
      const [bf16, int8, ...top] = payloads;
      // The first stands for a payload without a mistake, the second for one that is all mistake.
      assertEquals(bf16!.mean, 0);
      assertAlmostEquals(
        int8!.mean!,
        referenceRow(TERMS, student, student, label).values[k]! - exact[k]!,
        1e-12,
      );
      top.forEach(({ mean, largest, bound, bytesPerToken }, i) => {
        const entries = sizes[i]!;
        assertEquals(bytesPerToken, 4 * Math.ceil((2 * 4 + 4 * entries) / 4));
        if (TERMS[k]!.loss.id === "centred-logit-mse") {
          return assertEquals([mean, largest, bound], [null, null, null]);
        }
        const target: SparseTarget = { kind: "top-k", entries, temperatures: [1, 2] };
        const row = topOf(Float32Array.from(teacher), entries, [1, 2]);
        const [found] = referenceSparseRow([TERMS[k]!], student, row, target, label).values;
        // Logits that went through f32 there.
        assertAlmostEquals(exact[k]! + mean!, found!, 1e-5 * Math.max(1, Math.abs(found!)), TERMS[k]!.name);
        assertEquals(largest, Math.abs(mean!));
        const isBounded = BOUNDED.includes(TERMS[k]!.loss.id);
        assertEquals(bound !== null, isBounded);
        if (bound) {
          assert(largest! <= bound.largest + 1e-9, `${TERMS[k]!.name}: ${largest} above ${bound.largest}`);
        }
        if (entries === vocabulary) assertAlmostEquals(mean!, 0, 1e-9);
      });
    });
  }
});

Deno.test("what forward KL loses is P KL(p' || q') over the tail, so never below nothing", () => {
  const fkl = [term("forward-kl", 1)];
  for (const [student, teacher, label] of rowsOf(41)) {
    const sums = new AuditSums(fkl, [6], { hiddenSize: 8, vocabularySize: 41 });
    sums.add({ student: [student], f32: [teacher], bf16: [teacher], int8: [teacher] }, 0, label);
    const { mean } = sums.result().losses[0]!.payloads.at(-1)!;
    const [logP, logQ] = [logSoftmax(teacher, 1), logSoftmax(student, 1)];
    const tail = [...teacher.keys()].sort((a, b) => teacher[b]! - teacher[a]! || a - b).slice(6);
    const [p, q] = [logP, logQ].map((l) => tail.reduce((sum, v) => sum + Math.exp(l[v]!), 0));
    const kl = tail.reduce(
      (sum, v) => sum + Math.exp(logP[v]!) / p! * (logP[v]! - Math.log(p!) - logQ[v]! + Math.log(q!)),
      0,
    );
    assertAlmostEquals(-mean!, p! * kl, 1e-10);
    assert(mean! <= 0);
  }
});

modelTest(
  "an audit of a run tells of its losses and the usual ones, from both models on the GPU",
  async (gpu) => {
    await withTiny(async (files) => {
      const recipe = tinyRecipe(files, {
        objective: [{ loss: "forward-kl", temperature: 2 }, { loss: "cross-entropy" }, {
          loss: "forward-kl",
        }],
      });
      const prepared = await prepareRun(recipe);
      const registry = new Registry().addAll(builtins);
      try {
        const told: number[] = [];
        const options = { registry, tokens: 30, onProgress: (done: number) => void told.push(done) };
        const found = await auditCache(gpu, prepared, setUp(prepared, registry), options);
        assertEquals([found.tokens, told.length], [30, 30]);
        assertEquals(found.losses.map(({ name }) => name), [
          "forward-kl at 2",
          "forward-kl",
          ...[
            "reverse-kl",
            "jensen-shannon",
            "total-variation",
            "skew-kl",
            "skew-reverse-kl",
            "soft-cross-entropy",
          ],
        ]);
        // A vocabulary of 119 has its 64 largest logits, but no 128.
        const payloads = found.losses[0]!.payloads;
        assertEquals(payloads.length, 6);
        assert(TINY_VOCABULARY < 128);
        for (const { value, payloads: [bf16, int8, ...top] } of found.losses) {
          assert(value > 0.01);
          for (const { largest } of [bf16!, int8!]) assert(largest! > 0 && largest! < 0.1, `${largest}`);
          for (const { mean, bound, largest } of top) {
            assert(mean! < 0);
            if (bound) assert(largest! <= bound.largest + 1e-9 && Math.abs(mean!) <= bound.mean + 1e-9);
          }
        }
        const stop = new AbortController();
        const stopping = auditCache(gpu, prepared, setUp(prepared, registry), {
          ...{ registry, tokens: 30, signal: stop.signal },
          onProgress: (done) => done === 2 && stop.abort(new Error("enough")),
        });
        assertEquals(await stopping.then(() => "done", (error: Error) => error.message), "enough");
      } finally {
        prepared.close();
      }
    });
  },
);
