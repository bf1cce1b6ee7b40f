/**
 * The adapters that come with Limbeck.
 *
 * @module
 */
import type { Adapter } from "../../src/registry/contract.ts";
import adalora from "./adalora.ts";
import dora from "./dora.ts";
import hira from "./hira.ts";
import instanceGatedLora from "./instance_gated_lora.ts";
import lora from "./lora.ts";
import loraByShape from "./lora_by_shape.ts";
import loraFa from "./lora_fa.ts";
import miss from "./miss.ts";
import moslora from "./moslora.ts";
import olora from "./olora.ts";
import pissa from "./pissa.ts";
import shapeGatedLora from "./shape_gated_lora.ts";
import vera from "./vera.ts";

/** Every built-in adapter. */
export const adapters: readonly Adapter[] = [
  lora,
  dora,
  moslora,
  loraFa,
  pissa,
  olora,
  vera,
  miss,
  hira,
  shapeGatedLora,
  loraByShape,
  instanceGatedLora,
  adalora,
];
