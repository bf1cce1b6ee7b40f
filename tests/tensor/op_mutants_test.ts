/** Mistakes that are planted by rule in the kernels of ops, each of which has to make a test of its op fail. */
import { huntInTests } from "./op_mutants.ts";
import { type Equivalent, Hunters } from "./mutants.ts";

/** Mistakes that change nothing that a test of an op could see, and why. */
const EQUIVALENT: readonly Equivalent[] = [
  {
    mistake: /: (never|at the edge): main: (t|i|index|row|slot) >= size\.\w+ /,
    because: "what is written beyond the end of a binding, a driver drops",
  },
  {
    mistake: /: (always|at the edge): main: (i|u \+ #u|u) < size\.(vectors|elements|units) in if/,
    because: "what is written beyond the end of a binding, a driver drops",
  },
  {
    mistake: /: term dropped: main: group.x \+ group.y \* groups.x in /,
    because: "so few workgroups are not folded",
  },
  {
    mistake: /maskRows: all bits: /,
    because: "the flag is the lowest bit, or the highest that is set",
  },
  {
    mistake: /rangeMean: second choice: main: max\(first, end\[row\]\)/,
    because: "no loop goes through a range that is turned round",
  },
  {
    mistake: /gatedSilu(Backward)?: (at the edge: main: g < |first choice: main: select\(.* g < )/,
    because: "exp() of what is less is infinite, and makes the same 0",
  },
  {
    mistake: /(normal|dropout): one more: multiply: let middle#/,
    because: "one more in the lower half of a product is seldom carried into the upper",
  },
  {
    mistake:
      /(normal|dropout): (one more: main: let c = |term dropped: main: vec4<f32>\(c\) \+ 0.5|(at the edge|other size): .*size.threshold)/,
    because: "numbers that are 2^-32 apart are seldom told apart",
  },
  {
    mistake: /: term dropped: main: size\.\w+ [/%] #u in .*step\[/,
    because: "it is one of the first of the step's numbers",
  },
];

/** What is hunted in by the tests of its op, which can be run by thousands. */
const OPS: readonly [file: string, kernels: RegExp][] = [
  ["mask_rows", /^maskRows/],
  ["range_mean", /^rangeMean/],
  ["cache", /^scatterRows/],
  ["gated", /^gatedSilu/],
  ["normal", /^normal/],
  ["dropout", /^dropout/],
];

/** All take some minutes, and run where they are asked for; else one in a few of one op. */
const ALL = Deno.env.get("LIMBECK_ALL_VARIANTS") === "1";

Deno.test({
  name: `a mistake in ${ALL ? "any" : "some"} kernel makes a test of its op fail`,
  sanitizeResources: false,
  sanitizeOps: false,
  async fn() {
    const hunters = new Hunters(EQUIVALENT);
    for (const [op, kernels] of ALL ? OPS : OPS.slice(0, 1)) {
      const share = ALL ? {} : { share: { of: 6, at: 1 } };
      const hunt = {
        files: [`./${op}_test.ts`],
        kernels: (kernel: string) => kernels.test(kernel),
        ...share,
      };
      await hunters.huntBy(op, (more) => huntInTests({ ...hunt, ...more }));
    }
    hunters.end(ALL);
  },
});
