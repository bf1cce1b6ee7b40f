/**
 * PiSSA: LoRA that begins with the principal singular values and vectors of the weight W = U S V^T, B0 = U sqrt(S / s),
 * A0 = sqrt(S / s) V^T (Meng et al., arXiv 2404.02948, equations 2 and 3; s as in PEFT).
 *
 * @module
 */
import { startedLora } from "./started_lora.ts";

export default startedLora({
  id: "pissa",
  description: "LoRA that begins from the weight's largest singular values",
  source: "Meng et al., arXiv 2404.02948",
  start(weight, { inFeatures, outFeatures, rank }, linalg, scale) {
    const { u, s, vT } = linalg.svd(weight, outFeatures, inFeatures, rank);
    const root = s.map((value) => Math.sqrt(value / scale));
    return {
      a: vT.map((value, i) => value * root[Math.floor(i / inFeatures)]!),
      b: u.map((value, i) => value * root[i % rank]!),
    };
  },
});
