/**
 * Every subset of a model's layers beside the mean subset, really cut: `deno run -A bench/subsets.ts MODEL [TOKENS]`.
 *
 * The two take turns, so that whatever else the machine does slows both. `--tiled` runs the kernels for hardware GPUs.
 *
 * @module
 */
import { builtins } from "../plugins/mod.ts";
import { Model, uploadWeights } from "../src/distill/inputs/models.ts";
import { Objective } from "../src/distill/objective/objective.ts";
import { measureLosses, traceLearnerLosses } from "../src/distill/program/metrics/measure.ts";
import { headInput, traceModel } from "../src/distill/program/traced_model.ts";
import { headChunks } from "../src/distill/program/plan_training.ts";
import { Registry } from "../src/registry/registry.ts";
import { SubsetEvaluator } from "../src/shape/depth/subset_evaluator.ts";
import { SubsetProgram } from "../src/shape/depth/subset_program.ts";
import { evenlySpaced } from "../src/shape/depth/rules.ts";
import { combinations } from "../src/shape/depth/subsets.ts";
import { compile } from "../src/tensor/executable.ts";
import { plan, Program } from "../src/tensor/plan.ts";
import { openForBench } from "./measure.ts";

const [path, tokensGiven = "1024"] = Deno.args.filter((arg) => !arg.startsWith("--"));
if (path === undefined) throw new Error("name a model folder");
const wanted = Number(tokensGiven);
const LENGTH = 256;
const registry = new Registry().addAll(builtins);

const gpu = await openForBench();
const model = await Model.open(path, { category: "weights" });
const { layers, vocabularySize } = model.config;
const sizes = {
  ...headChunks({ tokensPerMicroBatch: wanted, headChunk: "auto" }, vocabularySize, gpu.description),
  positions: LENGTH,
};
const samples = Array.from({ length: wanted / LENGTH }, (_, s) => ({
  ids: Int32Array.from({ length: LENGTH }, (_, t) => (s * 7919 + t * 104729) % vocabularySize),
  supervised: Uint8Array.from({ length: LENGTH }, (_, t) => Number(t > 0)),
  source: { file: "bench", line: s + 1 },
}));

const subsets = Array.from({ length: layers }, (_, i) => [...combinations(layers, i + 1)]).flat();
const mean = subsets.reduce((sum, { length }) => sum + length, 0) / subsets.length;
const program = await SubsetProgram.create(gpu, model, registry, sizes);
const evaluator = new SubsetEvaluator(program, layers, samples);
const cut = await cutEvaluation(evenlySpaced(layers, Math.round(mean)));

const timed = async (work: () => Promise<unknown>) => {
  const begin = performance.now();
  await work();
  return performance.now() - begin;
};
await evaluator.measure(subsets[0]!, "loss");
await cut();
let [ofSubsets, ofMean] = [0, 0];
for (const kept of subsets) {
  ofSubsets += await timed(() => evaluator.measure(kept, "loss"));
  ofMean += await timed(cut);
}
console.log(
  `${subsets.length} subsets of ${layers} layers, ${mean.toFixed(2)} on average, on ${wanted} tokens: ` +
    `${(ofSubsets / 1000).toFixed(2)} s; as many evaluations of a model cut to ${Math.round(mean)} layers: ` +
    `${(ofMean / 1000).toFixed(2)} s; ratio ${(ofSubsets / ofMean).toFixed(3)}`,
);
Deno.exit(0);

/** Measures a model whose other layers are really cut away, as `limbeck eval` does. */
async function cutEvaluation(kept: readonly number[]): Promise<() => Promise<unknown>> {
  const small = await Model.open(path!, { category: "weights", layers: kept });
  const objective = Objective.of(registry, [], vocabularySize);
  const program = new Program();
  const graph = program.block("evaluate");
  const losses = objective.rowLosses(objective.crossEntropy, graph);
  const traced = traceModel(graph, "model", small, sizes.tokens, { length: sizes.positions });
  traceLearnerLosses(graph, headInput(traced, false), losses, sizes, "losses");
  const planned = plan(program, gpu.description);
  const executable = await compile(gpu, planned, { weights: await uploadWeights(gpu, planned, [small]) });
  objective.setEvaluationScalars(executable);
  return () =>
    measureLosses(executable, samples, {
      block: "evaluate",
      state: "losses",
      terms: objective.crossEntropy.terms,
      masks: objective.masks,
      tokensPerBatch: sizes.tokens,
    });
}
