/** Losses over groups of two tokenisations: the traced head with both kernel families against numbers of another program. */
import { builtins } from "../../plugins/mod.ts";
import { groupLoss, type GroupStream } from "../../src/distill/objective/group_rows.ts";
import { type PlacedStream, placeGroups } from "../../src/distill/objective/group_places.ts";
import { Objective } from "../../src/distill/objective/objective.ts";
import type { ResolvedGroupLoss } from "../../src/losses/compile_group.ts";
import type { GroupLoss, GroupRows } from "../../src/losses/group_contract.ts";
import { initialScalars } from "../../src/losses/traced.ts";
import hybridLogitGroups from "../../plugins/losses/hybrid_logit_groups.ts";
import universalLogitGroups from "../../plugins/losses/universal_logit_groups.ts";
import { Registry } from "../../src/registry/registry.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import type { EncodedSample } from "../../src/text/encode.ts";
import { hasShared, sharedPath } from "../shared.ts";
import { assertWithin, gpuTest, relativeError, run } from "../tensor/harness.ts";
import { type GoldenTensors, readGolden } from "./group_golden.ts";

const registry = new Registry().addAll(builtins);
const LOSSES: Record<string, [GroupLoss, Record<string, unknown>]> = {
  uld_first: [universalLogitGroups, { rows: "first" }],
  uld_positional: [universalLogitGroups, { rows: "positional" }],
  gold_chain: [universalLogitGroups, { rows: "chain" }],
  gold_observed: [universalLogitGroups, { rows: "observed" }],
  "hybrid_adaptive_b0.5": [hybridLogitGroups, { beta: 0.5 }],
  hybrid_fixed_b0: [hybridLogitGroups, { beta: 0, matched: 0.7, others: 0.4 }],
  hybrid_fixed_b1: [hybridLogitGroups, { beta: 1, matched: 0.7, others: 0.4 }],
};
