/**
 * The decoder of every family, traced from its description.
 *
 * @module
 */
import { tanh } from "../../tensor/expr/mod.ts";
import type { Tensor } from "../../tensor/graph.ts";
import { add, combine, scale } from "../../tensor/ops/combine.ts";
import { embedding } from "../../tensor/ops/embedding.ts";
import { linear } from "../../tensor/ops/matmul.ts";
import { pointwise } from "../../tensor/ops/pointwise.ts";
import { windowed } from "../../tensor/ops/windowed.ts";
import type { ModelContext } from "../context.ts";
import type { FamilyNames } from "../family.ts";
import { rotaryTable } from "../rope.ts";
import { attend } from "./attention.ts";
import type { DescribedConfig, LayerDescription, NormDescription, RotaryTable } from "./description.ts";
import type { LayerPlace } from "./linear.ts";
import { feedForward } from "./mlp.ts";
import { normalise } from "./norm.ts";

/**
 * Traces what a description says: hidden states after the final norm, f32 [T, hiddenSize], times what logits are multiplied by. See
 * `ModelFamily.decoder`.
 */
export function traceDecoder(ctx: ModelContext, config: DescribedConfig, names: FamilyNames): Tensor {
  const { description, hiddenSize } = config;
  // Asked for first, so that layers left out change nothing of where they lie.
  const tables = new Map(
    rotaryTables(config).map((
      { name, rotary },
    ) => [name, ctx.table(name, rotary.width, rotary.long ? 2 : 1)]),
  );
  const rows = ctx.weight(names.embedding, [config.vocabularySize, hiddenSize]);
  let x = scale(embedding(rows, ctx.inputs.tokens), description.embeddingScale ?? 1);
  if (description.positions) {
    const learned = ctx.weight(description.positions.name, [description.positions.rows, hiddenSize]);
    x = add(x, embedding(learned, ctx.inputs.positions));
  }
  x = ctx.tap("embeddings", x);
  const ranges = new Map(
    windowsOf(description.layers).map((window) => [window, windowed(ctx.inputs, window)]),
  );
  description.layers.forEach((layer, i) => {
    x = ctx.layer(i, x, (x) => {
      const place = { i, at: `${names.layers}.${i}`, tables, ranges };
      return ctx.tap(`model.layers.${i}.output`, traceLayer(ctx, config, layer, place, x));
    });
  });
  const hidden = ctx.tap("final_norm", normalise(ctx, description.finalNorm, x));
  return scale(hidden, description.logitScale ?? 1);
}

/** The windows of all layers, each once. */
function windowsOf(layers: readonly LayerDescription[]): (number | undefined)[] {
  return [...new Set(layers.map(({ attention }) => attention.window))];
}

function traceLayer(
  ctx: ModelContext,
  config: DescribedConfig,
  { attention, mlp, norms, residualScale = 1, parallel }: LayerDescription,
  place: LayerPlace,
  x: Tensor,
): Tensor {
  const normed = (norm: NormDescription | undefined, x: Tensor) =>
    norm ? normalise(ctx, { ...norm, name: `${place.at}.${norm.name}` }, x) : x;
  const residual = (x: Tensor, made: Tensor) => combine([x, made], [1, residualScale]);
  const attended = normed(
    norms.afterAttention,
    attend(ctx, config, attention, place, normed(norms.beforeAttention, x)),
  );
  const afterAttention = residual(x, attended);
  const seen = normed(norms.beforeMlp, parallel ? x : afterAttention);
  const made = normed(norms.afterMlp, feedForward(ctx, config, mlp, place, seen));
  return residual(afterAttention, made);
}

/** Traces logits of hidden states that {@linkcode traceDecoder} made; see `ModelFamily.head`. */
export function traceHead(ctx: ModelContext, config: DescribedConfig, names: FamilyNames, x: Tensor): Tensor {
  const { tiedHead, vocabularySize, hiddenSize, description: { logitSoftCap: cap } } = config;
  const logits = tiedHead
    ? linear(x, ctx.weight(names.embedding, [vocabularySize, hiddenSize]))
    : ctx.linear(names.head, x, vocabularySize);
  return cap === undefined ? logits : pointwise([logits], (z) => tanh(z!.mul(1 / cap)).mul(cap));
}

/** Every rotary table of a decoder, once. */
function rotaryTables({ description }: DescribedConfig): RotaryTable[] {
  const found = description.layers.flatMap(({ attention: { rotary } }) => rotary ? [rotary] : []);
  return [...new Map(found.map((table) => [table.name, table])).values()];
}

/** Tables made on the host, by their names; see `ModelFamily.tables`. */
export function decoderTables(
  config: DescribedConfig,
): Record<string, (rows: number) => Float32Array<ArrayBuffer>> {
  return Object.fromEntries(
    rotaryTables(config).map(({ name, rotary }) => [name, (rows: number) => rotaryTable(rotary, rows)]),
  );
}
