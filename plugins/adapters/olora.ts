/**
 * OLoRA: LoRA that begins with the first columns of the weight's QR factorisation, B0 = Q[:, :r], A0 = R[:r] (Buyukakyuz,
 * arXiv 2406.01775, algorithm 1). The first r columns of Q are those of W's first r columns alone, and R[:r] = Q[:, :r]^T W, so the
 * rest of W is never factorised.
 *
 * @module
 */
import { product, transpose } from "./low_rank.ts";
import { startedLora } from "./started_lora.ts";

export default startedLora({
  id: "olora",
  description: "LoRA that begins from an orthonormal basis of the weight",
  source: "Buyukakyuz, arXiv 2406.01775",
  start(weight, { inFeatures, outFeatures, rank }, linalg) {
    const first = Float32Array.from(
      { length: outFeatures * rank },
      (_, i) => weight[Math.floor(i / rank) * inFeatures + i % rank]!,
    );
    const { q } = linalg.qr(first, outFeatures, rank);
    return { a: product(transpose(q, outFeatures, rank), weight, rank, outFeatures, inFeatures), b: q };
  },
});
