/** Mistakes that are planted by rule in the kernels of ops, each of which has to make a test of its op fail. */
import { huntInTests } from "./op_mutants.ts";
import { type Equivalent, Hunters } from "./mutants.ts";

/** Mistakes that change nothing that anybody could see, and why. */
const EQUIVALENT: readonly Equivalent[] = [];

/** What has tests of its own beside this file, which can be run by thousands. */
const OPS = [
  ...["mask_rows", "range_mean", "cache", "columns", "gated", "norms", "normal", "dropout", "times_weight"],
  ...["unpack_rows", "windowed", "top_k_softmax", "rope", "expert_gradient"],
];

/** One in ten mistakes of all takes some minutes, and is made where it is asked for; else a few of one op. */
const ALL = Deno.env.get("LIMBECK_ALL_VARIANTS") === "1";
const SHARE = ALL ? 10 : 20;

Deno.test({
  name: `a mistake in ${ALL ? "any" : "some"} kernel makes a test of its op fail`,
  sanitizeResources: false,
  sanitizeOps: false,
  async fn() {
    const hunters = new Hunters(EQUIVALENT);
    for (const [at, op] of (ALL ? OPS : OPS.slice(0, 1)).entries()) {
      const hunt = { files: [`./${op}_test.ts`], share: { of: SHARE, at } };
      await hunters.huntBy(op, (more) => huntInTests({ ...hunt, ...more }));
    }
    hunters.end(ALL);
  },
});
