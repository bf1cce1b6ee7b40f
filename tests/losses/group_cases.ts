/** Two sequences of logits with groups of tokens: in f64 by the losses' own references and the chain rule, and traced on the GPU. */
import { builtins } from "../../plugins/mod.ts";
import { groupLoss, type GroupStream } from "../../src/distill/objective/groups/rows.ts";
import {
  countedGroups,
  type GroupSizes,
  type PlacedStream,
  placeGroups,
} from "../../src/distill/objective/groups/places.ts";
import { factorLosses } from "../../src/distill/objective/groups/terms.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import type { ResolvedGroupLoss } from "../../src/losses/compile_group.ts";
import type { GroupLoss } from "../../src/losses/group_contract.ts";
import { initialScalars } from "../../src/losses/traced.ts";
import { Registry } from "../../src/registry/registry.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import type { Tensor } from "../../src/tensor/graph.ts";
import type { EncodedSample } from "../../src/text/encode.ts";
import { run, type Value } from "../tensor/harness.ts";

/** Logits of two models over the tokens of one text; row i predicts token i + 1 of the sample. */
export interface GroupCase {
  readonly name: string;
  /** Rows of V and of W logits. */
  readonly student: readonly Float64Array[];
  readonly teacher: readonly Float64Array[];
  readonly sample: EncodedSample;
  /** Of each of the student's tokens the teacher's that stands for the same, or -1. */
  readonly teacherOf: Int32Array;
}

/** What a loss is on a case: of each group, and the gradient of their mean by the student's logits. */
export interface GroupOutcome {
  readonly values: readonly number[];
  readonly gradient: readonly Float64Array[];
}

/** A loss of an objective. */
export function groupTerm(
  loss: GroupLoss,
  options: Record<string, unknown>,
  temperature = 1,
): ResolvedGroupLoss {
  return { loss, options: loss.options.parse(options), name: "group", weight: 0.75, temperature };
}

/** A case of groups of given sizes, whose tokens were likely, with everything after the first tokens supervised. */
export function makeCase(
  name: string,
  sizes: readonly (readonly [number, number])[],
  [vocabulary, teacherVocabulary]: readonly [number, number],
  { unsupervised = 0, seed = 1 }: { unsupervised?: number; seed?: number } = {},
): GroupCase {
  let state = seed;
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  const normal = () => 2 * (next() + next() + next() + next() - 2) * Math.sqrt(3);
  const side = (count: number, width: number) => {
    const ids = Int32Array.from({ length: count + 1 }, (_, i) => i === 0 ? 0 : Math.floor(next() * width));
    const rows = Array.from(
      { length: count + 1 },
      (_, i) =>
        Float64Array.from(
          { length: width },
          (_, v) => Math.fround(normal() + (v === ids[i + 1] ? 4 : 0)),
        ),
    );
    const supervised = Uint8Array.from({ length: count + 1 }, (_, i) => Number(i > unsupervised));
    return { ids, rows, supervised };
  };
  const total = (k: 0 | 1) => sizes.reduce((sum, group) => sum + group[k], 0);
  const [own, other] = [side(total(0), vocabulary), side(total(1), teacherVocabulary)];
  return {
    name,
    student: own.rows,
    teacher: other.rows,
    sample: {
      ...{ ids: own.ids, supervised: own.supervised, source: { file: name, line: 1 } },
      other: { ids: other.ids, supervised: other.supervised, groups: groupPlaces(sizes.flat()) },
    },
    // Every third token is the other's at another place.
    teacherOf: Int32Array.from(
      { length: vocabulary },
      (_, v) => v % 3 === 0 && 2 * v < teacherVocabulary ? 2 * v : -1,
    ),
  };
}

/** Sizes of groups as places, behind the first token of either side. */
export function groupPlaces(sizes: ArrayLike<number>): Int32Array {
  const places: number[] = [];
  for (let g = 0, a = 1, c = 1; g < sizes.length; g += 2) {
    places.push(a, a += sizes[g]!, c, c += sizes[g + 1]!);
  }
  return Int32Array.from(places);
}

/** A case in f64. */
export function referenceGroups(
  { student, teacher, sample, teacherOf }: GroupCase,
  { loss, options, temperature }: ResolvedGroupLoss,
): GroupOutcome {
  const rows = loss.rows(options);
  const groups = countedGroups(sample, rows);
  const gradient = student.map((row) => new Float64Array(row.length));
  const values = groups.map(({ own, other: found }) => {
    // Where the student's token stands alone, the teacher's row means nothing.
    const other = found ?? [1, 2];
    const split = ([first, end]: readonly [number, number]) => {
      const tokens = Array.from({ length: end - first }, (_, i) => first + i);
      const base = rows === "chain" ? end - 1 : first;
      if (rows !== "chain" && rows !== "observed") return { base, factors: [] };
      return { base, factors: tokens.filter((i) => i !== base) };
    };
    const [a, b] = [split(own), split(other)];
    const scale = (logits: readonly Float64Array[], ids: Int32Array, factors: readonly number[]) =>
      factors.reduce((sum, i) => sum + Math.log(softmax(logits[i - 1]!, temperature)[ids[i]!]!), 0);
    const outcome = loss.reference({
      student: student[a.base - 1]!,
      teacher: teacher[b.base - 1]!,
      studentScale: scale(student, sample.ids, a.factors),
      teacherScale: scale(teacher, sample.other!.ids, b.factors),
      ...{ teacherOf, temperature, options },
      ...(rows === "mapped" ? { label: sample.ids[own[0]]!, isApart: !found } : {}),
    });
    outcome.gradient.forEach((g, v) => gradient[a.base - 1]![v]! += g / groups.length);
    for (const i of a.factors) {
      softmax(student[i - 1]!, temperature).forEach((q, v) => {
        const slope = (Number(v === sample.ids[i]) - q) / temperature;
        gradient[i - 1]![v]! += outcome.slope * slope / groups.length;
      });
    }
    return outcome.value;
  });
  return { values, gradient };
}

function softmax(z: Float64Array, temperature: number): Float64Array {
  const high = Math.max(...z);
  const e = z.map((x) => Math.exp((x - high) / temperature));
  const sum = e.reduce((a, b) => a + b);
  return e.map((x) => x / sum);
}

/** Rows of a stream and groups, padded. */
const [T, G, EACH] = [64, 64, 5];
const registry = new Registry().addAll(builtins);

/**
 * A case on the GPU. The student's hidden states are its logits and its head the identity; the teacher's head has its logits, and a hidden state
 * chooses one of them. With `trainHead` the student's is like the teacher's, and the gradient is that of its head.
 */
export async function runGroups(
  gpu: Gpu,
  { student, teacher, sample, teacherOf }: GroupCase,
  term: ResolvedGroupLoss,
  { trainHead = false }: { trainHead?: boolean } = {},
): Promise<GroupOutcome> {
  const [vocabulary, teacherVocabulary] = [student[0]!.length, teacher[0]!.length];
  const width = trainHead ? T : Math.ceil(vocabulary / 4) * 4;
  const sizes: GroupSizes = { groups: G, student: T, teacher: T, studentFactors: EACH, teacherFactors: EACH };
  const placed = placeGroups([sample], term.loss.rows(term.options), sizes);
  const hidden = new Float32Array(T * width);
  if (!trainHead) student.forEach((row, t) => hidden.set(row, t * width));
  const identity = (rows: number, width: number) =>
    Float32Array.from({ length: rows * width }, (_, i) => Number(Math.floor(i / width) === i % width));
  const chosen = (logits: readonly Float64Array[], vocabulary: number) => {
    const head = new Float32Array(vocabulary * T);
    logits.forEach((row, t) => row.forEach((z, w) => head[w * T + t] = z));
    return head;
  };
  const match = new Int32Array(vocabulary + teacherVocabulary).fill(-1);
  teacherOf.forEach((w, v) => {
    match[v] = w;
    if (w >= 0) match[vocabulary + w] = v;
  });
  const i32 = (data: Int32Array, ...shape: number[]): Value => ({ shape, dtype: "i32", data });
  const ofStream = ({ base, baseOf, factors, factorOf, tokens }: PlacedStream) => [
    ...[i32(base, G, 1), i32(baseOf, T, 1), i32(factors, G, EACH), i32(factorOf, T, 1), i32(tokens, T)],
  ];
  const values: Value[] = [
    { shape: [T, width], data: trainHead ? identity(T, T) : hidden },
    {
      shape: [vocabulary, width],
      data: trainHead ? chosen(student, vocabulary) : identity(vocabulary, width),
    },
    { shape: [T, T], data: identity(T, T) },
    { shape: [teacherVocabulary, T], data: chosen(teacher, teacherVocabulary) },
    { shape: [G], data: new Float32Array(G).fill(1 / placed.count) },
    i32(placed.counted, G),
    i32(match, vocabulary + teacherVocabulary),
    ...ofStream(placed.student),
    ...ofStream(placed.teacher),
  ];
  const stream = (tensors: readonly Tensor[]): GroupStream => {
    const [base, baseOf, factors, factorOf, tokens] = tensors as [Tensor, Tensor, Tensor, Tensor, Tensor];
    return { base, baseOf, factors, factorOf, tokens };
  };
  const factors = factorLosses(registry, term, vocabulary);
  const { outputs } = await run(gpu, values, (graph, x, w, tx, tw, above, counted, match, ...places) => {
    const ofHead: Tensor[] = [];
    const trained = [{ tensor: w!, addGradient: (gradient: Tensor) => void ofHead.push(gradient) }];
    const traced = groupLoss(graph, {
      learner: { hidden: x!, weight: w!, ...(trainHead ? { trained } : {}) },
      target: { hidden: tx!, weight: tw! },
      ...{ student: stream(places.slice(0, 5)), teacher: stream(places.slice(5)) },
      ...{ counted: counted!, match: match!, term },
      shape: {
        ...{ vocabulary, teacherVocabulary },
        matched: teacherOf.filter((w) => w >= 0).length,
      },
      crossEntropy: {
        student: factors.rowLosses(graph),
        teacher: factorLosses(registry, term, teacherVocabulary).rowLosses(graph),
      },
      chunkRows: { groups: 64, student: 64, teacher: 64 },
      gradient: true,
    });
    const [gradient] = gradients(graph, [[traced.weighted!, above!]], [trainHead ? w! : x!]);
    return [traced.values, traced.weighted!, ...(trainHead ? ofHead : [gradient!])];
  }, {
    "group.weight": term.weight,
    "group.temperature": term.temperature,
    ...Object.fromEntries(initialScalars([factors.term])),
  });
  const [found, , ...parts] = outputs as [Float32Array, Float32Array, ...Float32Array[]];
  const at = (t: number, v: number) => trainHead ? v * width + t : t * width + v;
  return {
    values: Array.from(found.subarray(0, placed.count)),
    gradient: student.map((row, t) =>
      row.map((_, v) => parts.reduce((sum, part) => sum + part[at(t, v)]!, 0) / term.weight)
    ),
  };
}
