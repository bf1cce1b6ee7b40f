/**
 * What descriptions of decoders are put together from, under the name `decoder` in the contract.
 *
 * @module
 */
export { parseDecoderConfig } from "../models/config.ts";
export { parseRope } from "../models/rope.ts";
export {
  ACTIVATIONS,
  everyLayer,
  finalNorm,
  layerTypes,
  rotaryTableOf,
  SANDWICH_NORMS,
  SILU,
  slidingLayers,
  USUAL_NAMES,
  usualLayer,
  usualNarrowing,
  windowed,
} from "../models/decoder/usual.ts";
