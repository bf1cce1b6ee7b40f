/**
 * The kinds of teachers, each with what it promises: one table, which the conformance test goes through.
 *
 * @module
 */
import centredLogitMse from "../../plugins/losses/centred_logit_mse.ts";
import crossEntropy from "../../plugins/losses/cross_entropy.ts";
import decoupledKd from "../../plugins/losses/decoupled_kd.ts";
import entropyGapKl from "../../plugins/losses/entropy_gap_kl.ts";
import forwardKl from "../../plugins/losses/forward_kl.ts";
import jensenShannon from "../../plugins/losses/jensen_shannon.ts";
import pairwiseRanking from "../../plugins/losses/pairwise_ranking.ts";
import reverseKl from "../../plugins/losses/reverse_kl.ts";
import totalVariation from "../../plugins/losses/total_variation.ts";
import type { RecipeInput, TeacherCacheRecipe } from "../../src/distill/recipe/recipe.ts";
import { cacheRefusal } from "../../src/losses/sparse_target.ts";
import type { Divergence, RowLoss } from "../../src/registry/contract.ts";
import { TINY_VOCABULARY } from "./tiny_model.ts";

/**
 * Of what a loss may want of a teacher's rows one each: only the label, the teacher's probabilities, the student's beside them, their
 * mixture, differences of probabilities, the logits themselves, those beside the label, entropies; and of the losses in WGSL one that needs
 * every logit. What a kind of teacher gives is rows of logits, the same for all losses, and one kernel of all takes minutes to compile:
 * each is held to f64 in tests/losses, on whole rows and on cached ones.
 */
export const LOGIT_LOSSES: readonly (Divergence | RowLoss)[] = [
  crossEntropy,
  forwardKl,
  reverseKl,
  jensenShannon,
  totalVariation,
  centredLogitMse,
  decoupledKd,
  entropyGapKl,
  pairwiseRanking,
];

/** A kind of teacher, as a recipe names it. */
export interface TeacherKind {
  readonly name: string;
  /** What the recipe says of the teacher beside its model; or with it, and with a folder for caches where that needs one. */
  readonly teacher:
    | Partial<RecipeInput["teacher"]>
    | ((model: string, folder: string) => RecipeInput["teacher"]);
  /** Its stated error: how far a loss may be from that of the live model, absolute and as a share of the value. */
  readonly error: number;
  /** Losses that it serves; all when absent. */
  readonly losses?: readonly (Divergence | RowLoss)[];
  /** What a run with it learns by; forward and reverse KL when absent. */
  readonly objective?: readonly string[];
  /** Whether another kind stops and resumes as it does: what differs is how its rows are stored. */
  readonly resumesLikeAnother?: true;
  /** The one temperature that it serves; any when absent. */
  readonly temperature?: 1;
}

/** Losses that rows of a kind can serve. */
function servedBy(kind: "top-k" | "samples", entries: number) {
  return LOGIT_LOSSES.filter((loss) => !cacheRefusal(loss, loss.options.parse({}), { kind, entries }));
}

/** Of kinds whose losses are parted: a kernel of all of them would be one more to compile. */
const FEW = LOGIT_LOSSES.filter(({ id }) => ["forward-kl", "reverse-kl", "pairwise-ranking"].includes(id));

/** The live model comes first: the others are held to it. */
export const TEACHER_KINDS: readonly TeacherKind[] = [
  { name: "live", teacher: {}, error: 0 },
  { name: "streamed", teacher: { stream: true }, error: 1e-6 },
  {
    name: "the largest logits, all of them",
    teacher: { cache: { topK: TINY_VOCABULARY, precision: "f32" } },
    error: 2e-5,
    losses: servedBy("top-k", TINY_VOCABULARY),
  },
  {
    name: "many samples of the distribution",
    teacher: { cache: { samples: 256, seed: 3 } },
    temperature: 1,
    // Of 256 draws, shares are off by 1/16 of their root; the entropy of the sample is below the teacher's.
    error: 0.2,
    losses: servedBy("samples", 256),
    objective: ["cross-entropy", "forward-kl"],
  },
  {
    name: "hidden states in f32",
    teacher: { cache: { payload: "hidden", precision: "f32" } },
    error: 2e-5,
    resumesLikeAnother: true,
  },
  {
    name: "hidden states in bf16",
    teacher: { cache: { payload: "hidden", precision: "bf16" } },
    error: 2e-2,
    resumesLikeAnother: true,
  },
  {
    name: "hidden states in int8",
    teacher: { cache: { payload: "hidden", precision: "int8" } },
    error: 2.5e-2,
  },
  // Of one model twice, whatever they are together is that model.
  { name: "a product", teacher: (model) => ({ combine: "product", ...twice(model) }), error: 2e-5 },
  { name: "the best of two", teacher: (model) => ({ combine: "best", ...twice(model) }), error: 1e-6 },
  {
    name: "a mixture of hidden states",
    teacher: (model) => ({
      ...{ combine: "mixture", ...twice(model) },
      cache: { payload: "hidden", precision: "f32" },
    }),
    error: 2e-5,
    // Parted by temperature.
    losses: FEW,
  },
  {
    name: "a mixture of one that is there and one behind a server, of hidden states",
    teacher: (model, folder) => ({
      combine: "mixture",
      teachers: [{ model, name: "a" }, served({ payload: "hidden", precision: "f32", folder })],
    }),
    error: 2e-5,
    losses: FEW,
  },
  {
    name: "the best of one that is there and one behind a server, of all its log-probabilities",
    teacher: (model, folder) => ({
      combine: "best",
      teachers: [{ model, name: "a" }, served({ topK: TINY_VOCABULARY, precision: "f32", folder })],
    }),
    error: 2e-5,
    losses: FEW.filter(({ id }) => id !== "pairwise-ranking"),
    temperature: 1,
  },
];

/** One behind a server that has the same model; see `answerAs`. */
function served(cache: Partial<TeacherCacheRecipe>) {
  return { model: "server", name: "far", server: { url: "http://127.0.0.1:9/v1", model: "m" }, cache };
}

function twice(model: string) {
  return { teachers: ["a", "b"].map((name) => ({ model, name })) };
}
