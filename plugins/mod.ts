/**
 * The losses, adapters and merges that come with Limbeck.
 *
 * @module
 */
import type { Plugin } from "../src/registry/contract.ts";
import { adapters } from "./adapters/mod.ts";
import adaptiveKl from "./losses/adaptive_kl.ts";
import alphaBetaDivergence from "./losses/alpha_beta_divergence.ts";
import alphaDivergence from "./losses/alpha_divergence.ts";
import attentionRelation from "./losses/attention_relation.ts";
import centredLogitMse from "./losses/centred_logit_mse.ts";
import crossEntropy from "./losses/cross_entropy.ts";
import decoupledKd from "./losses/decoupled_kd.ts";
import dpo from "./losses/dpo.ts";
import entropy from "./losses/entropy.ts";
import entropyGapKl from "./losses/entropy_gap_kl.ts";
import forwardKl from "./losses/forward_kl.ts";
import hiddenStateCosine from "./losses/hidden_state_cosine.ts";
import hiddenStateMse from "./losses/hidden_state_mse.ts";
import hybridLogitGroups from "./losses/hybrid_logit_groups.ts";
import mappedLogitGroups from "./losses/mapped_logit_groups.ts";
import jensenShannon from "./losses/jensen_shannon.ts";
import ktoPair from "./losses/kto_pair.ts";
import pairwiseRanking from "./losses/pairwise_ranking.ts";
import rankCorrelation from "./losses/rank_correlation.ts";
import relationDistillation from "./losses/relation_distillation.ts";
import reverseKl from "./losses/reverse_kl.ts";
import skewKl from "./losses/skew_kl.ts";
import skewReverseKl from "./losses/skew_reverse_kl.ts";
import softCrossEntropy from "./losses/soft_cross_entropy.ts";
import sortedTopK from "./losses/sorted_top_k.ts";
import taid from "./losses/taid.ts";
import totalVariation from "./losses/total_variation.ts";
import universalLogit from "./losses/universal_logit.ts";
import universalLogitGroups from "./losses/universal_logit_groups.ts";
import { merges } from "./merges/mod.ts";

/** Every built-in plugin. */
export const builtins: readonly Plugin[] = [
  crossEntropy,
  forwardKl,
  reverseKl,
  softCrossEntropy,
  jensenShannon,
  skewKl,
  skewReverseKl,
  totalVariation,
  alphaDivergence,
  alphaBetaDivergence,
  decoupledKd,
  centredLogitMse,
  entropy,
  adaptiveKl,
  entropyGapKl,
  taid,
  rankCorrelation,
  pairwiseRanking,
  universalLogit,
  sortedTopK,
  universalLogitGroups,
  hybridLogitGroups,
  mappedLogitGroups,
  dpo,
  ktoPair,
  hiddenStateMse,
  hiddenStateCosine,
  attentionRelation,
  relationDistillation,
  ...adapters,
  ...merges,
];
