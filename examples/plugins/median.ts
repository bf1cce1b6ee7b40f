// A merge: the median of what each parent changed, which one odd parent cannot move far.
//
//   limbeck plugin check examples/plugins/median.ts

import { CONTRACT_VERSION, defineMerge, noOptions } from "@limbeck/limbeck/plugin";

export default defineMerge({
  id: "example/median",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "W_0 + the median of W_i - W_0, entry by entry",
  source: "an example; no paper",
  options: noOptions,
  parentOptions: noOptions,
  base: "required",
  parents: { least: 1 },
  unit: "entries",
  identities: { symmetric: true, first: { parents: [{}] } },
  merge({ base, parents }) {
    const changes = new Float64Array(parents.length);
    return base!.map((w, i) => {
      for (let k = 0; k < changes.length; k++) changes[k] = parents[k]!.values[i]! - w;
      changes.sort();
      return w + (changes[(changes.length - 1) >> 1]! + changes[changes.length >> 1]!) / 2;
    });
  },
});
