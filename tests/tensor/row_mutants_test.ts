/** Mistakes that are planted by rule in kernels that make a row each: norms, their gradients, and log-sum-exp. */
import { gradients } from "../../src/tensor/differentiate.ts";
import { layerNorm } from "../../src/tensor/ops/layer_norm.ts";
import { rmsNorm, rmsNormBackwardOp } from "../../src/tensor/ops/rms_norm.ts";
import { rowLogSumExp } from "../../src/tensor/ops/row_log_sum_exp.ts";
import { gpuTest, randomArray, type Value } from "./harness.ts";
import { type Equivalent, type Hunt, Hunters, isWithin } from "./mutants.ts";

/** Mistakes that change nothing that anybody could see, and why. */
const EQUIVALENT: readonly Equivalent[] = [
  {
    mistake: /: second choice: main: min\(begin \+ #u, size.rows\) in /,
    because: "workgroups make again what others make",
  },
  {
    mistake:
      /: (always|at the edge): main: (thread|lane) == #u in if \((thread|lane) == #u\) \{ (scale|mean|out)/,
    because: "all threads of a row know the same",
  },
  {
    mistake: /: term dropped: main: group.x \+ group.y \* groups.x in let begin/,
    because: "where a workgroup makes eight rows there are so few that they are not folded",
  },
  {
    mistake:
      /Norm(Backward)? f32( \+ addend)?: one more: sum_over_threads: thread in shared_sums\[thread\] = /,
    because: "odd rows of less than 64 values leave nothing to the last thread",
  },
  {
    mistake: /rowLogSumExp.*: at the edge: main: u \+ #u < size.units in .*found/,
    because: "the first value of the next row is not its largest",
  },
  {
    mistake: /layerNorm.*: term dropped: main: value# - mean in squares/,
    because: "the sum of (v - m) v is that of (v - m)^2",
  },
  {
    mistake:
      /rmsNormWeight sum: (term dropped: main: index % size.columns|zero: main: let block|other size: main: size.width in out)/,
    because: "what was summed by blocks is one block",
  },
  {
    mistake: /rowLogSumExp.*: (always|at the edge|all bits): max_over_threads: /,
    because: "what the other threads bring is put beyond what is read",
  },
  {
    mistake: /rowLogSumExp by 128: other size: main: size.units in for/,
    because: "rows of so many threads take one turn, which all of them begin",
  },
  {
    mistake: /rowLogSumExp.*: no barrier: sum_over_threads: before return/,
    because: "the first thread alone needs the sum, and has made it",
  },
  {
    mistake: /rowLogSumExp.*: (other size: main: size.temperature|one more: main: first in var found)/,
    because: "one vector has both numbers, and any value of a row is one to begin with",
  },
];

const EPSILON = 1e-3;

/** Rows of few and of many values, with and without a vector that is not whole, each with so many rows that grids are folded. */
const SHAPES = [[15, 36], [71, 7], [15, 251], [15, 256], [15, 388], [15, 1028], [15, 1031], [15, 1819], [
  15,
  8196,
], [
  15,
  11_376,
]] as const;

interface Row {
  readonly values: readonly Value[];
  readonly build: Hunt["build"];
  /** What outputs have to be, and how far they may be off. */
  readonly expected: readonly (readonly [Float64Array, number])[];
  readonly kernels: RegExp;
}

/** Rows whose mean is not 0, each larger than the one before; the second is no number, and nothing else is none then. */
function rowsOf(rows: number, width: number, seed: number): Float32Array {
  return randomArray(rows * width, seed).map((v, i) =>
    i === width + 1 ? NaN : (v + 0.5) * (1 + Math.floor(i / width) / rows)
  );
}

/** y, and from dy dx and what comes to the weight, of rows whose mean is taken off or not. */
function norm(rows: number, width: number, isCentred: boolean): Row {
  const [x, dy, past] = [1, 2, 3].map((seed) => rowsOf(rows, width, seed)) as [
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  const [w, b] = [4, 5].map((seed) => randomArray(width, seed)) as [Float32Array, Float32Array];
  const y = new Float64Array(rows * width);
  const dx = new Float64Array(rows * width);
  const dw = new Float64Array(width);
  const scales = new Float64Array(rows);
  for (let t = 0; t < rows; t++) {
    const at = (h: number) => t * width + h;
    const sum = (f: (h: number) => number) =>
      Array.from({ length: width }, (_, h) => f(h)).reduce((a, b) => a + b);
    const mean = isCentred ? sum((h) => x[at(h)]!) / width : 0;
    const scale = 1 / Math.sqrt(sum((h) => (x[at(h)]! - mean) ** 2) / width + EPSILON);
    scales[t] = scale;
    const unit = (h: number) => (x[at(h)]! - mean) * scale;
    const along = sum((h) => dy[at(h)]! * w[h]! * unit(h)) / width;
    const middle = isCentred ? sum((h) => dy[at(h)]! * w[h]!) / width : 0;
    for (let h = 0; h < width; h++) {
      y[at(h)] = unit(h) * w[h]! + (isCentred ? b[h]! : 0);
      dx[at(h)] = scale * (dy[at(h)]! * w[h]! - middle - unit(h) * along);
      // Of all rows but the one that is none.
      if (t !== 1) dw[h]! += dy[at(h)]! * unit(h);
    }
  }
  // Without the row that is none, of which nothing comes to the weight.
  const sound = (of: Float32Array) => of.map((v, i) => (Math.floor(i / width) === 1 ? 0 : v));
  const matrix = (data: Float32Array): Value => ({ shape: [rows, width], data });
  const vector = (data: Float32Array): Value => ({ shape: [width], data });
  return {
    values: [x, dy, past, sound(x), sound(dy)].map(matrix).concat([w, b].map(vector)),
    build(graph, plant, ...inputs) {
      const [x, dy, past, soundX, soundDy, w, b] = inputs;
      const y = isCentred ? layerNorm(x!, w!, b!, EPSILON) : rmsNorm(x!, w!, EPSILON);
      const [dx] = gradients(graph, [[y, dy!]], [x!]);
      const sound = isCentred ? layerNorm(soundX!, w!, b!, EPSILON) : rmsNorm(soundX!, w!, EPSILON);
      const [dw] = gradients(graph, [[sound, soundDy!]], [w!]);
      const made = [y, dx!, dw!];
      if (!isCentred) made.push(...graph.add(rmsNormBackwardOp, [x!, w!, dy!, past!], { epsilon: EPSILON }));
      // And what these read: the rows without a bias, and what the weight's gradient has to know of them.
      const read = [...made, ...(isCentred ? [y.producer!.inputs[0]!] : []), dw!.producer!.inputs[2]!];
      new Map(read.map((t) => [t.producer, t])).values().forEach((t) => plant(t));
      return made;
    },
    expected: [
      [y, isCentred ? 1e-5 : 4e-6],
      [dx, isCentred ? 2e-4 : 4e-5],
      [dw, 2e-4],
      ...(isCentred ? [] : [[dx.map((v, i) => v + past[i]!), 4e-5] as const, [scales, 4e-6] as const]),
    ],
    kernels: /^(rms|layer)Norm/,
  };
}

/**
 * Each row has a value far above all others and those of the row before: of narrow rows everywhere, of wide ones where threads and their turns
 * begin and, in the matrix beside, where they end; and once at the very end.
 */
function logSumExp(width: number): Row {
  const isNarrow = width < 1100;
  const rows = isNarrow ? 191 : 97;
  // Once round, it goes on to the next of four values that are read at once.
  const nth = (row: number) => isNarrow ? 0 : Math.floor(row * 128 / width);
  const place = (row: number) => isNarrow ? Math.floor(row * width / rows) : row * 128;
  const [x, beside] = [0, 1].map((before) =>
    randomArray(rows * width, width).map((v, i) => {
      const row = Math.floor(i / width);
      const at = row === rows - 1
        ? width - 1
        : (place(row) + (before ? -1 - nth(row) : nth(row)) + width) % width;
      return v + (i % width === at ? 300 * (1 + row) : 0);
    })
  ) as [Float32Array, Float32Array];
  const small = randomArray(rows * width, width, 3);
  const of = (x: Float32Array) =>
    Float64Array.from({ length: rows }, (_, t) => {
      const row = x.subarray(t * width, (t + 1) * width);
      const largest = row.reduce((a, b) => Math.max(a, b)) / 2.5;
      return largest + Math.log(row.reduce((sum, v) => sum + Math.exp(v / 2.5 - largest), 0));
    });
  return {
    values: [x, beside, small].map((data) => ({ shape: [rows, width], data })),
    build(_, plant, ...inputs) {
      const made = inputs.map((x) => rowLogSumExp(x, "tau"));
      made.forEach(plant);
      return made;
    },
    expected: [[of(x), 8e-3], [of(beside), 8e-3], [of(small), 4e-6]],
    kernels: /^rowLogSumExp/,
  };
}

/** All of a kind in one program, since a text serves several shapes. */
function together(rows: readonly Row[]): Row {
  return {
    values: rows.flatMap(({ values }) => values),
    build(graph, plant, ...inputs) {
      let at = 0;
      return rows.flatMap(({ values, build }) =>
        build(graph, plant, ...inputs.slice(at, at += values.length))
      );
    },
    expected: rows.flatMap(({ expected }) => expected),
    kernels: rows[0]!.kernels,
  };
}

/** All take minutes, and are made where they are asked for; else one in so many. */
const ALL = Deno.env.get("LIMBECK_ALL_VARIANTS") === "1";
const SHARE = 20;

gpuTest(`a mistake in ${ALL ? "any" : "some"} kernel of a row is noticed`, async (gpu) => {
  // So wide a row that these are folded is not among those.
  const few: readonly Equivalent[] = ALL
    ? []
    : [{ mistake: /: term dropped: main: group.x \+ group.y/, because: "so few workgroups are not folded" }];
  const hunters = new Hunters([...EQUIVALENT, ...few]);
  const shapes = ALL ? SHAPES : SHAPES.slice(0, 4);
  const kinds = {
    "rms norm": shapes.map(([rows, width]) => norm(rows, width, false)),
    "layer norm": shapes.map(([rows, width]) => norm(rows, width, true)),
    "log-sum-exp": [...shapes.map(([, width]) => width), ...(ALL ? [2052] : [])].map(logSumExp),
  };
  for (const [at, [kind, rows]] of Object.entries(kinds).slice(ALL ? 0 : 1, ALL ? 3 : 2).entries()) {
    const { values, build, expected, kernels } = together(rows);
    await hunters.hunt(kind, {
      ...{ gpu, values, scalars: { a: 0.1, b: 0.2, c: 0.3, d: 0.4, e: 0.6, tau: 2.5 } },
      ...(ALL ? {} : { share: { of: SHARE, at } }),
      kernels: (kernel) => kernels.test(kernel),
      // Grids are folded.
      device: { ...gpu.description, maxWorkgroupsPerDimension: 14 },
      build(graph, plant, ...inputs) {
        // What is divided by stands neither first nor at the beginning of a vector of these numbers.
        for (const name of ["a", "b", "c", "d", "e", "tau"]) graph.scalar(name);
        return build(graph, plant, ...inputs);
      },
      isRight: (found) => expected.every(([values, tolerance], i) => isWithin(found[i]!, values, tolerance)),
    });
  }
  hunters.end(ALL);
});
