/**
 * Graphs that use every op in every variant, also those that no program of today happens to need.
 *
 * @module
 */
import { builtins } from "../../plugins/mod.ts";
import type { DeviceDescription } from "../../src/gpu/description.ts";
import { type ResolvedLoss } from "../../src/losses/traced.ts";
import { compileRowLoss } from "../../src/losses/compile.ts";
import { compileGroupLoss } from "../../src/losses/compile_group.ts";
import { compileTails } from "../../src/losses/row_tails.ts";
import { cacheRefusal, type SparseTarget } from "../../src/losses/sparse_target.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import * as expr from "../../src/tensor/expr/mod.ts";
import { type DType, type Graph, type Tensor } from "../../src/tensor/graph.ts";
import { accumulate } from "../../src/tensor/ops/accumulate.ts";
import { addRow } from "../../src/tensor/ops/add_row.ts";
import { adamw } from "../../src/tensor/ops/adamw.ts";
import { attention, type AttentionRanges } from "../../src/tensor/ops/attention.ts";
import { gatherRows, scatterRows } from "../../src/tensor/ops/cache.ts";
import { splitColumns } from "../../src/tensor/ops/columns.ts";
import { combine } from "../../src/tensor/ops/combine.ts";
import { expertWeights, mixture } from "../../src/tensor/ops/experts.ts";
import { dropout } from "../../src/tensor/ops/dropout.ts";
import { drawTokens } from "../../src/tensor/ops/draw_tokens.ts";
import { fill, fillConstant } from "../../src/tensor/ops/fill.ts";
import { gatedSilu } from "../../src/tensor/ops/gated.ts";
import { layerNorm } from "../../src/tensor/ops/layer_norm.ts";
import { materialise } from "../../src/tensor/ops/materialise.ts";
import { linear, matmul, matmulOp, type Orientation } from "../../src/tensor/ops/matmul.ts";
import { normal } from "../../src/tensor/ops/normal.ts";
import { clippingFactor, gradientNorm } from "../../src/tensor/ops/norms.ts";
import { maskRows } from "../../src/tensor/ops/mask_rows.ts";
import { pointwise } from "../../src/tensor/ops/pointwise.ts";
import { rangeMean } from "../../src/tensor/ops/range_mean.ts";
import { relationsOp } from "../../src/tensor/ops/relations.ts";
import { rmsNorm, rmsNormBackwardOp } from "../../src/tensor/ops/rms_norm.ts";
import { rope } from "../../src/tensor/ops/rope.ts";
import { rowLogSumExp } from "../../src/tensor/ops/row_log_sum_exp.ts";
import { sumColumns } from "../../src/tensor/ops/pointwise.ts";
import { sumRows } from "../../src/tensor/ops/pointwise.ts";
import { DRAW_WORDS, sampleTokens } from "../../src/tensor/ops/sample_tokens.ts";
import { tokenScores } from "../../src/tensor/ops/token_scores.ts";
import { topK } from "../../src/tensor/ops/top_k.ts";
import { timesWeight } from "../../src/tensor/ops/times_weight.ts";
import { topKSoftmax } from "../../src/tensor/ops/top_k_softmax.ts";
import { unpackRows } from "../../src/tensor/ops/unpack_rows.ts";
import { windowed } from "../../src/tensor/ops/windowed.ts";
import { type Plan, plan, Program } from "../../src/tensor/plan.ts";

const STORAGE_TYPES: readonly DType[] = ["f32", "f16", "bf16"];
const BLOCK_TYPES: readonly DType[] = ["q8_0", "q4_0", "q4_k", "q6_k", "nf4", "nf4-double"];

/** A block whose operands are declared on the fly and whose results are all wanted. */
class OpBlock {
  readonly graph: Graph;
  #count = 0;

  constructor(program: Program) {
    this.graph = program.block("ops");
  }

  tensor(shape: readonly number[], dtype: DType = "f32"): Tensor {
    const kind = dtype === "i32" ? "input" : "state";
    return this.graph.use({ kind, name: `x${this.#count++}`, shape, dtype, category: "ops" });
  }

  /** Keeps results from being dropped as unused. */
  want(...results: readonly (Tensor | undefined)[]): void {
    for (const t of results) if (t) this.graph.output(`y${this.#count++}`, t);
  }

  /** Wants a result and its gradients. */
  wantGradients(y: Tensor, inputs: readonly Tensor[]): void {
    this.want(y, ...gradients(this.graph, [[y, this.tensor(y.shape)]], inputs));
  }
}

/** A plan with every op. */
export function opPlan(device: DeviceDescription): Plan {
  const program = new Program();
  const block = new OpBlock(program);
  for (
    const trace of [
      products,
      roundedProducts,
      blockWeights,
      rowOps,
      attentions,
      experts,
      relations,
      elementwise,
      expressions,
      optimiser,
    ]
  ) {
    trace(block);
  }
  return plan(program, device);
}

/** Plans that have every variant of attention and its gradients once, for heads of several widths. */
export function attentionPlans(device: DeviceDescription): Plan[] {
  const plans: Plan[] = [];
  for (const headDim of [20, 256]) {
    const program = new Program();
    attentionOf(new OpBlock(program), { rows: 300, headDim });
    // A device with more memory for its workgroups has larger tiles.
    const large = { ...device, maxWorkgroupMemory: 2 * device.maxWorkgroupMemory, maxInvocations: 1024 };
    const choices = [...plan(program, large).kernels.values()];
    const most = Math.max(...choices.map(({ candidates }) => candidates.length));
    for (let i = 0; i < most; i++) {
      const kernels = Object.fromEntries(
        choices.map(({ key, candidates }) => [key, candidates[i % candidates.length]!.name]),
      );
      plans.push(plan(program, { ...large, kernels }));
    }
  }
  return plans;
}

function products(block: OpBlock): void {
  const shapes: Record<Orientation, (m: number, n: number, k: number) => [number, number][]> = {
    NT: (m, n, k) => [[m, k], [n, k]],
    NN: (m, n, k) => [[m, k], [k, n]],
    TN: (m, n, k) => [[k, m], [k, n]],
  };
  for (const orientation of ["NT", "NN", "TN"] as const) {
    for (const dtype of STORAGE_TYPES) {
      for (const terms of [1, 2]) {
        for (const m of [4, 12, 20, 33]) {
          for (const n of [7, 8, 24, 63]) {
            for (const k of [17, 20]) {
              const [x, w] = shapes[orientation](m, n, k) as [[number, number], [number, number]];
              const pair = (type: DType) => [block.tensor(x), block.tensor(w, type)];
              const inputs = [...pair(dtype), ...(terms === 2 ? pair("f32") : [])];
              const factors = terms === 2 ? [1, 2] : [1];
              block.want(block.graph.add(matmulOp, inputs, { orientation, factors, addend: false })[0]);
            }
          }
        }
      }
    }
  }
}

/** Products whose operands are rounded, and whose sums along K are shared by workgroups. */
function roundedProducts(block: OpBlock): void {
  for (const [k, n] of [[1028, 36], [1031, 37]] as const) {
    const [x, w] = [block.tensor([9, k]), block.graph.weight(`rounded ${k}`, [n, k], "bf16")];
    block.wantGradients(linear(x, w, "f16"), [x]);
    block.wantGradients(linear(x, w), [x]);
  }
}

/** Weights in blocks: each text that reads them, in every kernel that includes one. */
function blockWeights(block: OpBlock): void {
  const positions = block.tensor([9], "i32");
  for (const dtype of BLOCK_TYPES) {
    for (const width of [36, 37]) {
      const w = block.tensor([20, width], dtype);
      block.want(materialise(w), gatherRows(w, positions));
      block.wantGradients(timesWeight(block.tensor([20, width]), w), []);
      for (const rows of [5, 65]) {
        block.want(matmul("NT", block.tensor([rows, width]), w), matmul("NN", block.tensor([rows, 20]), w));
      }
    }
  }
}

function rowOps(block: OpBlock): void {
  const positions = block.tensor([9], "i32");
  for (const width of [36, 37]) {
    for (const dtype of STORAGE_TYPES) {
      const [x, weight] = [block.tensor([9, width]), block.tensor([width], dtype)];
      block.wantGradients(rmsNorm(x, weight, 1e-5), dtype === "f32" ? [x, weight] : [x]);
      block.wantGradients(rmsNorm(x, weight, 1e-5, { plusOne: true }), [x]);
      block.wantGradients(layerNorm(x, weight, weight, 1e-5), dtype === "f32" ? [x, weight] : [x]);
      block.want(gatherRows(block.tensor([5, width], dtype), positions));
      block.want(addRow(x, weight));
    }
    block.want(scatterRows(block.tensor([5, width]), block.tensor([9, width]), positions));
    block.want(rangeMean(block.tensor([9, width]), block.tensor([3], "i32"), block.tensor([3], "i32")));
  }
  // In registers of both families, and of hardware alone.
  for (const width of [36, 388]) {
    const [x, dy, passing] = [1, 2, 3].map(() => block.tensor([9, width])) as [Tensor, Tensor, Tensor];
    const weight = block.tensor([width]);
    block.wantGradients(rmsNorm(x, weight, 1e-5), [x]);
    block.want(...block.graph.add(rmsNormBackwardOp, [x, weight, dy, passing], { epsilon: 1e-5 }));
  }
  for (const width of [4, 7]) {
    const x = block.tensor([9, 3 * width]);
    block.wantGradients(splitColumns(x, [width, width, width])[1]!, [x]);
  }
  for (const headDim of [6, 8, 64, 128]) {
    const x = block.tensor([9, 3 * headDim]);
    block.wantGradients(rope(x, positions, block.tensor([64, headDim]), 3, headDim), [x]);
  }
  for (const [rotated, headDim] of [[4, 6], [8, 12]] as const) {
    block.want(
      rope(block.tensor([9, 3 * headDim]), positions, block.tensor([64, rotated]), 3, headDim, rotated),
    );
  }
}

function rangesOf(block: OpBlock, rows: number): AttentionRanges {
  return { start: block.tensor([rows], "i32"), end: block.tensor([rows], "i32") };
}

/** Attention with its gradients; returns what else may be made of its operands. */
function attentionOf(block: OpBlock, { rows, headDim }: { rows: number; headDim: number }) {
  const qkv = [4, 2, 2].map((heads) => block.tensor([rows, heads * headDim]));
  const [q, k, v] = qkv as [Tensor, Tensor, Tensor];
  const heads = { heads: 4, keyValueHeads: 2, headDim, scale: 1 };
  block.wantGradients(attention(q, k, v, rangesOf(block, rows), heads), qkv);
  return { q, k, v, heads };
}

function attentions(block: OpBlock): void {
  for (const headDim of [4, 8, 20, 48, 64, 80, 128, 132, 256]) {
    for (const rows of [3, 65]) {
      const { q, k, v, heads } = attentionOf(block, { rows, headDim });
      block.wantGradients(attention(q, k, v, rangesOf(block, rows), heads), [q]);
      block.want(attention(q, k, v, rangesOf(block, rows), { ...heads, apart: true }));
      if (![8, 256].includes(headDim)) continue;
      const near = windowed(rangesOf(block, rows), 3);
      block.wantGradients(attention(q, k, v, near, { ...heads, softCap: 30 }), [q, k, v]);
      block.want(attention(q, k, v, near, { ...heads, softCap: 30, apart: true }));
    }
  }
}

function experts(block: OpBlock): void {
  for (const [tokens, experts] of [[3, 40], [37, 5], [120, 3]] as const) {
    for (const [hidden, inner] of [[12, 8], [20, 24], [10, 7]] as const) {
      for (const dtype of STORAGE_TYPES) {
        const x = block.tensor([tokens, hidden]);
        const logits = block.tensor([tokens, experts]);
        const [into, outOf] = [[experts * inner, hidden], [experts * hidden, inner]].map((s) =>
          block.tensor(s, dtype)
        );
        const weights = expertWeights(logits, 2, { normalise: false });
        const y = mixture(x, weights, 2, (rows, linear) => linear(linear(rows, into!), outOf!));
        block.wantGradients(y, dtype === "f32" ? [x, logits, into!, outOf!] : [x, logits]);
      }
    }
  }
}

function relations(block: OpBlock): void {
  const flags = () => block.tensor([9], "i32");
  for (const kind of ["softmax", "cosine"] as const) {
    for (const causal of [true, false]) {
      for (const [width, masked] of [[8, false], [6, true]] as const) {
        const [x, y] = [block.tensor([9, 2 * width]), block.tensor([9, 16])];
        const inputs = [x, y, flags(), flags(), ...(masked ? [flags()] : [])];
        const attributes = { kind, causal, heads: 2, scales: [1, 1] } as const;
        block.wantGradients(block.graph.add(relationsOp, inputs, attributes)[0]!, [x]);
      }
    }
  }
  block.want(maskRows(block.tensor([9]), flags()));
  block.want(unpackRows(block.tensor([9, 3], "u32"), 5));
  block.want(unpackRows(block.tensor([9, 3], "u32"), 11, block.tensor([9, 1])));
}

function elementwise(block: OpBlock): void {
  for (const [width, temperature] of [[8, undefined], [9, "tau"]] as const) {
    block.want(rowLogSumExp(block.tensor([3, width]), temperature));
  }
  const { graph } = block;
  const x = block.tensor([9, 37]);
  const others = [1, 2, 3].map(() => block.tensor([9, 37]));
  for (let n = 1; n <= 4; n++) {
    block.want(combine([x, ...others.slice(0, n - 1)], [2, 3, 4, 5].slice(0, n)));
  }
  block.wantGradients(gatedSilu(x, others[0]!), [x, others[0]!]);
  const draw = { site: 1, key: graph.scalar("key") };
  block.want(dropout(x, { rate: 0.5, ...draw }), normal(graph, [9, 37], draw));
  block.wantGradients(topKSoftmax(x, 2), [x]);
  for (const k of [1, 3]) block.want(...Object.values(topK(x, k)));
  block.want(tokenScores(x, block.tensor([9], "i32")));
  const counters = block.graph.input("counters", [x.dim(0)], "u32");
  block.want(...Object.values(drawTokens(x, counters, { draws: 5, seed: [1, 2] })));
  const chosen = [graph.state("chosen", [x.dim(0)], "i32"), graph.state("measures", [x.dim(0), 2], "f32")];
  sampleTokens(x, graph.input("draws", [x.dim(0), DRAW_WORDS], "u32"), chosen[0]!, chosen[1]!);
  block.want(fill(graph, [64], graph.scalar("value")), fillConstant(graph, [64], 0.5));
  for (const dtype of STORAGE_TYPES) block.wantGradients(timesWeight(x, block.tensor([9, 37], dtype)), [x]);
  accumulate(block.tensor([9, 37]), x, graph.scalar("keep"));
  accumulate(block.tensor([9, 37]), x, 1);
}

/** Every function of scalar expressions, over operands repeated in every way, and their gradients. */
function expressions(block: OpBlock): void {
  const unary = [
    expr.abs,
    expr.detach,
    expr.erf,
    expr.exp,
    expr.expm1,
    expr.log,
    expr.log1p,
    expr.neg,
    expr.sigmoid,
    expr.sign,
    expr.sqrt,
    expr.tanh,
  ];
  const binary = [expr.add, expr.sub, expr.mul, expr.div, expr.min, expr.max, expr.logAddExp];
  const scalar = expr.stepScalar("strength");
  for (const width of [36, 37]) {
    const operands = [[9, width], [width], [9, 1], [1]].map((shape) => block.tensor(shape));
    const [x, row, column, one] = operands as [Tensor, Tensor, Tensor, Tensor];
    for (const f of unary) block.wantGradients(pointwise([x], (a) => f(a!.mul(scalar))), [x]);
    for (const f of binary) {
      for (const other of [row, column, one]) {
        block.wantGradients(pointwise([x, other], (a, b) => f(a!, b!)), [x, other]);
      }
    }
    const chosen = pointwise(operands, (a, b, c, d) => {
      const condition = a!.lessThan(b!).and(c!.equalTo(d!).not()).or(a!.lessOrEqual(d!));
      return expr.select(condition, a!.square(), condition.toNumber());
    });
    block.wantGradients(chosen, operands);
    block.wantGradients(sumRows(x), [x]);
    block.wantGradients(sumColumns(x), [x]);
  }
}

function optimiser(block: OpBlock): void {
  // One level, two levels, and three: the middle one reads and writes pairs.
  const [small] = [100, 40_000, 16384 ** 2 + 64].map((count) => {
    const norm = gradientNorm(block.tensor([count]));
    block.want(norm);
    return norm;
  });
  const flat = [1, 2, 3, 4].map(() => block.tensor([256])) as [Tensor, Tensor, Tensor, Tensor];
  const settings = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, first: 0, count: 256, weightDecay: 0 };
  adamw(...flat, small!, settings);
  adamw(...flat, small!, { ...settings, clip: 1 });
  for (const clip of [undefined, 1]) block.want(clippingFactor(small!, clip));
}

/**
 * Kernels of losses over rows: mixtures of all built-in losses, for vocabularies that take each way over a row; and every loss alone, whose
 * kernel may lack what others bring into a mixture, for one vocabulary of each kind of loop. Of what a kernel may differ in (vocabulary, target,
 * gradient, masks, temperature) every pair is there, not every combination: these are the longest texts by far.
 */
export function rowLossTexts(device: DeviceDescription): { label: string; wgsl: string }[] {
  const losses = builtins.flatMap((p) => (p.kind === "divergence" || p.kind === "row-loss" ? [p] : []));
  const term = (loss: (typeof losses)[number], rest: Partial<ResolvedLoss> = {}): ResolvedLoss => ({
    loss,
    options: loss.options.parse({}),
    name: `${loss.id} ${rest.temperature ?? 1}`,
    weight: 1,
    temperature: 1,
    ...rest,
  });
  const mixtures = [
    losses.flatMap((l) => [term(l), term(l, { temperature: 2 })]),
    losses.map((l) => term(l, { monitor: true })),
  ];
  const texts = [];
  const top64: SparseTarget = { kind: "top-k", entries: 64, temperatures: [1, 2] };
  const sampled: SparseTarget = { kind: "samples", entries: 50, temperatures: [] };
  const masked = losses.map((l, i) => term(l, { tokenMask: i % 2 }));
  for (const [vocabulary, gradient] of [[127, true], [128, false]] as const) {
    const shape = { vocabulary, tokenMasks: true };
    const { label, wgsl } = compileRowLoss(masked, shape, device, { gradient });
    texts.push({ label: `${label} of ${vocabulary}`, wgsl });
  }
  for (const [t, target] of [top64, { ...top64, entries: 3 }, sampled].entries()) {
    const served = losses.filter((l) => !cacheRefusal(l, l.options.parse({}), target));
    const terms = served.flatMap((l) => [term(l), term(l, { temperature: 2 })]);
    for (const [v, vocabulary] of [127, 128, 32000].entries()) {
      const shape = { vocabulary, tokenMasks: (t + v) % 2 === 0, sparseTarget: target };
      const { label, wgsl } = compileRowLoss(terms, shape, device, { gradient: (t + 2 * v) % 3 < 2 });
      texts.push({ label: `${label} of ${vocabulary} from a cache`, wgsl });
      if (target.kind === "samples") continue;
      const { label: tails, wgsl: text } = compileTails(target, vocabulary, device);
      texts.push({ label: `${tails} of ${vocabulary}`, wgsl: text });
    }
  }
  const add = (terms: readonly ResolvedLoss[], vocabulary: number, gradient: boolean) => {
    const { label, wgsl } = compileRowLoss(terms, { vocabulary }, device, { gradient });
    texts.push({ label: `${label} of ${vocabulary}`, wgsl });
  };
  for (const [m, terms] of mixtures.entries()) {
    for (const [v, vocabulary] of [3, 16, 127, 128, 132, 1024, 1027, 32000].entries()) {
      add(terms, vocabulary, (m + v) % 2 === 0);
    }
  }
  for (const loss of builtins.flatMap((p) => (p.kind === "group-loss" ? [p] : []))) {
    const shape = { vocabulary: 127, teacherVocabulary: 64, matched: 5 };
    for (const gradient of [true, false]) {
      const options = loss.options.parse({});
      const { label, wgsl } = compileGroupLoss({ loss, options, name: "group" }, shape, device, { gradient });
      texts.push({ label, wgsl });
    }
  }
  for (const [i, loss] of losses.entries()) {
    const temperature = (t: number) => term(loss, { temperature: t });
    add([temperature(1)], 127, true);
    add([temperature(2)], 1027, i % 2 === 0);
    add([temperature(1 + i % 2)], 1024, i % 2 === 1);
  }
  return texts;
}
