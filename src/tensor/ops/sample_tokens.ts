/**
 * The next token of each row of logits, chosen on the GPU with counter-based random numbers.
 *
 * @module
 */
import orderedKey from "../../../kernels/include/ordered_key.wgsl" with { type: "text" };
import philox from "../../../kernels/include/philox.wgsl" with { type: "text" };
import kernel from "../../../kernels/sampling/sample_tokens.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import type { Tensor } from "../graph.ts";
import { ensure, grid, type Op } from "../op.ts";

/** Words that say how the token of a row is chosen. */
export const DRAW_WORDS = 8;

/** How the token of a row is chosen. */
export interface Draw {
  /** Number of the token in its text, from 0. */
  readonly place: number;
  /** Number of the text among those of one seed. */
  readonly sequence: number;
  /** Divides the logits; 0 takes the largest. */
  readonly temperature: number;
  /** Only so many largest are drawn from; 0 is all. */
  readonly topK: number;
  /** Only the likeliest whose probabilities sum to at least this are drawn from; 1 is all. */
  readonly topP: number;
  /** 64 bits: low word, high word. */
  readonly seed: readonly [number, number];
}

/** The draws of some rows as {@linkcode sampleTokens} takes them; a row that has none keeps its token. */
export function drawWords(draws: readonly (Draw | undefined)[]): Uint32Array {
  const words = new Uint32Array(DRAW_WORDS * draws.length);
  const floats = new Float32Array(words.buffer);
  draws.forEach((draw, row) => {
    const at = DRAW_WORDS * row;
    if (!draw) {
      words[at] = 0xffff_ffff;
      return;
    }
    const { place, sequence, temperature, topK, topP, seed } = draw;
    words.set([place, sequence, 0, topK, 0, ...seed], at);
    floats[at + 2] = temperature;
    floats[at + 4] = topP;
  });
  return words;
}

/** Sweeps over a row where both top-k and top-p are asked for. */
const SWEEPS = 22;

/** Turns of all loops that a thread of Mesa's software driver has, less those over lanes. */
const MOST_TURNS = 64_000;

/** Writes into its third and fourth input; see {@linkcode sampleTokens}. */
const sampleTokensOp: Op<null> = {
  name: "sampleTokens",
  mutates: true,
  alias: (output) => ({ input: 2 + output, byteOffset: 0 }),
  infer(inputs) {
    const [x, draws, tokens, measures] = inputs as [Tensor, Tensor, Tensor, Tensor];
    ensure(x.shape.length === 2 && x.dtype === "f32", "sampleTokens", inputs, "expected f32 [R, V]");
    ensure(x.dim(1) <= 2 ** 24, "sampleTokens", inputs, "rows have at most 2^24 elements");
    const shapes = [[x.dim(0), DRAW_WORDS], [x.dim(0)], [x.dim(0), 2]];
    const types = ["u32", "i32", "f32"];
    [draws, tokens, measures].forEach((t, i) =>
      ensure(
        t.dtype === types[i] && String(t.shape) === String(shapes[i]),
        "sampleTokens",
        inputs,
        `expected ${types[i]} [${shapes[i]!.join(", ")}] for operand ${i + 1}`,
      )
    );
    return [tokens, measures].map(({ shape, dtype }) => ({ shape, dtype }));
  },
  lower({ inputs, outputs, device, dispatch }) {
    const [rows, width] = inputs[0]!.shape as [number, number];
    const SUBGROUP = device.family === "subgroup8";
    const LANES = SUBGROUP ? 8 : 256;
    let UNROLL = SUBGROUP ? 8 : 2;
    while (SWEEPS * Math.ceil(width / (LANES * UNROLL)) > MOST_TURNS) UNROLL *= 2;
    dispatch({
      kernel: "sampleTokens",
      wgsl: expandTemplate("sample_tokens", kernel, { SUBGROUP, LANES, UNROLL }, {
        philox,
        ordered_key: orderedKey,
      }),
      tensors: [inputs[0]!, inputs[1]!, outputs[0]!, outputs[1]!],
      size: [rows, width],
      groups: grid(rows, device),
      flops: 10 * rows * width,
    });
  },
};

/**
 * Chooses a token of each row, in place. What is chosen is a function of the row and its draw alone: temperature first, then top-k, then
 * top-p over what is left, as llama.cpp and transformers order them.
 *
 * @param x f32 [R, V], V at most 2^24
 * @param draws u32 [R, {@linkcode DRAW_WORDS}] as {@linkcode drawWords} makes them
 * @param tokens i32 [R], a state: takes the tokens
 * @param measures f32 [R, 2], a state: takes the log-probability of the token and the entropy of its row, in nats, both of
 *   softmax(x / temperature) before top-k and top-p; at temperature 0 of softmax(x)
 */
export function sampleTokens(
  x: Tensor,
  draws: Tensor,
  tokens: Tensor,
  measures: Tensor,
): { readonly tokens: Tensor; readonly measures: Tensor } {
  const [chosen, measured] = x.graph.add(sampleTokensOp, [x, draws, tokens, measures], null);
  return { tokens: chosen!, measures: measured! };
}
