/**
 * Numbers as people read them.
 *
 * @module
 */
// @ts-types="../../types/std_bytes.d.ts"
import { format } from "@std/fmt/bytes";

/** Bytes in binary units, such as `1.5 GiB`. */
export function bytes(count: number): string {
  return format(count, { binary: true, maximumFractionDigits: 1 }).replace("kiB", "KiB");
}

/** Seconds as `0:07`, `12:40` or `3:05:00`. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const pad = (value: number) => String(value).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours > 0 ? `${hours}:${pad(minutes)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`;
}

/** A loss or another small number with three decimals; a dash where there is none. */
export function number3(value: number | null | undefined): string {
  return value === null || value === undefined || !Number.isFinite(value) ? "-" : value.toFixed(3);
}

/** A rate or count with at most three significant digits, such as `1.24` or `213`. */
export function short(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "-";
  return Math.abs(value) >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
}

/** A count with a suffix, such as `15.2 M`. */
export function count(value: number): string {
  for (const [size, suffix] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]] as const) {
    if (value >= size) return `${Number((value / size).toPrecision(3))} ${suffix}`;
  }
  return String(value);
}

/** A share from 0 to 1 with at most three significant digits, such as `33.3 %`. */
export function percent(share: number): string {
  return `${short(100 * share)} %`;
}
