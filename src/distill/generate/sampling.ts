/**
 * How the next token of a text is chosen.
 *
 * @module
 */

/**
 * Temperature first, then top-k, then top-p over what is left, as llama.cpp and transformers order them; see `sampleTokens`. What is drawn
 * depends on the seed, the number of the text and the place in it alone.
 */
export interface SamplingOptions {
  /** Divides the logits; 0 takes the likeliest token always. */
  readonly temperature: number;
  /** Only this many likeliest tokens are drawn from; 0 is all. */
  readonly topK: number;
  /** Only the likeliest tokens whose probabilities sum to at least this are drawn from; 1 is all. */
  readonly topP: number;
  readonly seed: number;
}
