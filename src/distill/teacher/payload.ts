/**
 * The payloads of a cache.
 *
 * @module
 */
import { RowCodec, type RowFormat } from "./cached_rows.ts";
import { HiddenCodec, type HiddenFormat } from "./hidden_rows.ts";
import type { RowStorage } from "./row_storage.ts";

/** A part of the teacher's distribution (its largest logits, or samples of it), or the hidden states that its head reads. */
export type PayloadFormat = RowFormat | HiddenFormat;

/** Whether it keeps hidden states. */
export function keepsHidden(format: PayloadFormat): format is HiddenFormat {
  return "width" in format;
}

/** How rows of a format are stored. */
export function rowStorage(format: PayloadFormat): RowStorage {
  return keepsHidden(format) ? new HiddenCodec(format) : new RowCodec(format);
}
