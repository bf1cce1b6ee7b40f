// A loss at level 2: WGSL for one row of logits, for what needs a search over the vocabulary. The teacher's favourite entry must
// be ahead of the student's best other entry by a margin.
//
//   limbeck plugin check examples/plugins/favourite-margin.ts

import { CONTRACT_VERSION, defineLoss } from "@limbeck/limbeck/plugin";
import { z } from "zod";

export default defineLoss({
  id: "example/favourite-margin",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "hinge between the teacher's favourite entry and the student's best other one",
  source: "multiclass hinge: Crammer and Singer, JMLR 2 (2001)",
  options: z.strictObject({
    margin: z.number().positive().default(1).describe("How far ahead the teacher's favourite must be"),
  }),
  needsTeacher: true,
  wgsl: ({ options: { margin } }) => /* wgsl */ `
    var<private> $wanted: u32;
    var<private> $rival: u32;
    var<private> $active: f32;
    fn $best(skip: u32, ofTeacher: bool) -> u32 {
      var top = -3.0e38;
      var at = 0xffffffffu;
      for (var v = lane; v < row_vocabulary; v += LANES) {
        let z = select(student(v), teacher(v), ofTeacher);
        if (v != skip && z > top) { top = z; at = v; }
      }
      let highest = row_max(top);
      return row_min_u32(select(0xffffffffu, at, top == highest));
    }
    fn $value() -> f32 {
      $wanted = $best(0xffffffffu, true);
      $rival = $best($wanted, false);
      let gap = ${margin} - student($wanted) + student($rival);
      $active = select(0.0, 1.0, gap > 0.0);
      return max(gap, 0.0);
    }
    fn $gradient(v: u32, z: f32, t: f32) -> f32 {
      return $active * (select(0.0, 1.0, v == $rival) - select(0.0, 1.0, v == $wanted));
    }`,
  reference({ student, teacher, options: { margin } }) {
    const wanted = teacher.indexOf(Math.max(...teacher));
    const others = student.map((z, v) => v === wanted ? -Infinity : z);
    const rival = others.indexOf(Math.max(...others));
    const gap = margin - student[wanted]! + student[rival]!;
    const gradient = new Float64Array(student.length);
    if (gap > 0) {
      gradient[wanted] = -1;
      gradient[rival] = 1;
    }
    return { value: Math.max(gap, 0), gradient };
  },
});
