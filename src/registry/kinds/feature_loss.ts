/**
 * Feature losses: tensor programs over inner values of the models.
 *
 * @module
 */
import { checkFeatureLoss } from "../check/feature_losses.ts";
import type { FeatureLoss } from "../feature_contract.ts";
import { featureProgramText } from "../feature_program.ts";
import type { Kind } from "../kind.ts";
import source from "./feature_loss.ts.txt" with { type: "text" };

/** Losses over inner values of the models. */
export const featureLoss: Kind<FeatureLoss, "loss"> = {
  id: "feature-loss",
  role: "loss",
  define: "defineFeatureLoss",
  functions: ["taps", "program"],
  computes: featureProgramText,
  check: checkFeatureLoss,
  template: {
    name: "feature-loss",
    about: "inner values",
    source,
  },
};
