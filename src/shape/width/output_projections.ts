/**
 * Sums over the weights of a model's output projections, in f64 and a few rows at a time.
 *
 * @module
 */
import { narrowingOf } from "../../distill/inputs/cut_model.ts";
import type { Model } from "../../distill/inputs/models.ts";
import type { LayerCompensation } from "../../distill/inputs/width_cut.ts";
import { toFloat32 } from "../../formats/dtype.ts";
import { inputScores, type KeptUnits, type LayerStatistics, type UnitScores, unitScores } from "./flap.ts";

/** Bytes of f32 that are looked at at once, about. */
const PIECE_BYTES = 16 * 2 ** 20;

/** Scores of everything that can be cut from a model whose inputs are known. */
export async function scoreUnits(model: Model, statistics: readonly LayerStatistics[]): Promise<UnitScores> {
  const scores: { groups: Float64Array; channels: Float64Array }[] = [];
  for (const [layer, { attention, mlp }] of statistics.entries()) {
    const names = outputProjections(model, layer);
    scores.push(unitScores(
      inputScores(attention.variance, await columnSquares(model, names.attention)),
      inputScores(mlp.variance, await columnSquares(model, names.mlp)),
      model.config.keyValueHeads,
      layer,
    ));
  }
  return { groups: scores.map(({ groups }) => groups), channels: scores.map(({ channels }) => channels) };
}

/** sum_i W[i, j]^2 of a weight [out, in], f64 [in]. */
export async function columnSquares(model: Model, tensor: string): Promise<Float64Array> {
  const sums = new Float64Array(model.architecture.tensors.get(tensor)![1]!);
  await eachRow(model, tensor, (row) => {
    for (let j = 0; j < row.length; j++) sums[j]! += row[j]! * row[j]!;
  });
  return sums;
}

/** What stands for the inputs that a cut takes away: W[:, cut] mean[cut] of each output projection, [hiddenSize]. */
export async function compensate(
  model: Model,
  statistics: readonly LayerStatistics[],
  { groups, channels }: KeptUnits,
): Promise<LayerCompensation[]> {
  const { attentionHeads, keyValueHeads, headDim } = model.config;
  const size = attentionHeads / keyValueHeads * headDim;
  const compensation: LayerCompensation[] = [];
  for (const [layer, { attention, mlp }] of statistics.entries()) {
    const names = outputProjections(model, layer);
    const heads = new Set(groups[layer]!);
    const kept = new Set(channels[layer]!);
    compensation.push({
      attention: await timesMeans(
        model,
        names.attention,
        attention.mean,
        (j) => !heads.has(Math.floor(j / size)),
      ),
      mlp: await timesMeans(model, names.mlp, mlp.mean, (j) => !kept.has(j)),
    });
  }
  return compensation;
}

async function timesMeans(
  model: Model,
  tensor: string,
  mean: Float64Array,
  isCut: (input: number) => boolean,
): Promise<Float64Array> {
  const of = mean.map((m, j) => isCut(j) ? m : 0);
  const bias: number[] = [];
  await eachRow(model, tensor, (row) => {
    let sum = 0;
    for (let j = 0; j < row.length; j++) sum += row[j]! * of[j]!;
    bias.push(sum);
  });
  return Float64Array.from(bias);
}

function outputProjections({ architecture, path }: Model, layer: number): { attention: string; mlp: string } {
  const { projections } = narrowingOf(architecture, path);
  const at = `${architecture.family.names.layers}.${layer}`;
  return {
    attention: `${at}.${projections.attentionOutput}.weight`,
    mlp: `${at}.${projections.mlpOutput}.weight`,
  };
}

async function eachRow(model: Model, tensor: string, look: (row: Float32Array) => void): Promise<void> {
  const [rows, width] = model.architecture.tensors.get(tensor) as [number, number];
  const piece = Math.max(1, Math.floor(PIECE_BYTES / 4 / width));
  for (let first = 0; first < rows; first += piece) {
    const { dtype, data } = await model.read(tensor, first, Math.min(piece, rows - first));
    const values = toFloat32(dtype, data);
    for (let i = 0; i < values.length; i += width) look(values.subarray(i, i + width));
  }
}
