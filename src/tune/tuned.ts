/**
 * What is known of the kernels of a device once they have been timed, as it is kept and handed about.
 *
 * @module
 */
import { z } from "zod";
import { canonicalJson } from "../base/json.ts";
import type { Gpu } from "../gpu/device.ts";
import type { ChosenKernel } from "../tensor/variants.ts";
import { planTrial, textsOf } from "./trial.ts";

const seconds = z.number().nonnegative();
/** It may come from a process that others' plugins run in. */
const words = z.string().max(2000);

const triedSchema = z.strictObject({
  kernel: words,
  /** Seconds over those of the kernel that stands first; absent where it was refused. */
  ratio: z.number().nonnegative().optional(),
  /** Why it will not be taken: it does not compile, fails, or gives other numbers. */
  refused: words.optional(),
});

const choiceSchema = z.strictObject({
  /** Kind and class of shapes: see `tensor/variants.ts`. */
  key: words.min(1),
  /** SHA-256 (hex) of the texts of all candidates. */
  text: words.min(1),
  /** The kernel that was found best. */
  kernel: words.min(1),
  /** The one that is taken where nothing was measured. */
  first: words.min(1),
  /** Seconds of one run of each. */
  seconds,
  firstSeconds: seconds,
  /** Floating-point operations of one run, and bytes of what it reads and writes. */
  flops: z.number().nonnegative(),
  bytes: z.number().nonnegative(),
  /** How many kernels there are. */
  candidates: z.int().positive(),
  /** Those that were timed, in that order, the first one aside. */
  tried: z.array(triedSchema).max(1000),
});

const deviceSchema = z.strictObject({
  name: words,
  vendor: words,
  architecture: words,
  device: words,
  description: words,
  /** The implementation of WebGPU, which writes the driver's language. */
  runtime: words,
  software: z.boolean(),
  /** Where the processor plays the GPU, how many of it there are; else 0. */
  processors: z.int().nonnegative(),
  features: z.array(words).max(100),
  /** Limits and family, as plans see them. */
  limits: z.record(words, z.json()),
});

const measured = { device: deviceSchema, choices: z.array(choiceSchema).max(10_000) };

/** What was measured on a device, as a process tells it. */
export const measuredSchema = z.object(measured);

/** What is kept of one device. */
export const tunedDeviceSchema = z.strictObject({ version: z.literal(1), ...measured });

/** What tells a device from others: another driver's kernels are other kernels. */
export type DeviceIdentity = Readonly<z.output<typeof deviceSchema>>;
/** A choice among kernels that was measured. */
export type TunedChoice = Readonly<z.output<typeof choiceSchema>>;
/** A candidate that was timed. */
export type TriedKernel = Readonly<z.output<typeof triedSchema>>;
/** All that was measured on a device. */
export type TunedDevice = Readonly<z.output<typeof tunedDeviceSchema>>;

/** What a device is. */
export function deviceIdentity({ adapter: { info }, description, features, provider }: Gpu): DeviceIdentity {
  const { kernels: _, name, ...limits } = description;
  const software = info.isFallbackAdapter;
  const { userAgent = "", hardwareConcurrency = 0 } = globalThis.navigator ?? {};
  return {
    name,
    ...{ vendor: info.vendor, architecture: info.architecture },
    ...{ device: info.device, description: info.description },
    runtime: [provider, userAgent].filter(Boolean).join(", "),
    software,
    processors: software ? hardwareConcurrency : 0,
    features: [...features].sort(),
    limits: JSON.parse(JSON.stringify(limits)),
  };
}

/** Whether two devices are the same, as far as can be told. */
function isSameDevice(a: DeviceIdentity, b: DeviceIdentity): boolean {
  return canonicalJson(a) === canonicalJson(b);
}

/** What is kept of one device; no choices where there is nothing. */
export function choicesOf(kept: readonly TunedDevice[], device: DeviceIdentity): TunedChoice[] {
  return kept.flatMap((k) => isSameDevice(k.device, device) ? k.choices : []);
}

/** SHA-256 (hex) of the names and texts of all kernels of a choice, as this device gets them. */
export async function kernelTexts(
  choice: ChosenKernel,
  gpu: Pick<Gpu, "description" | "preamble">,
): Promise<string> {
  const texts = choice.candidates.map(({ name }) => [
    name,
    ...textsOf(planTrial(choice, name, gpu.description)),
  ]);
  return await sha256(JSON.stringify([gpu.preamble, texts]));
}

/** SHA-256 (hex) of a text. */
export async function sha256(text: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Most measurements of one choice that are kept: shapes of a class may have kernels of different texts. */
const KEPT_TEXTS = 4;

/** Adds choices to those that are kept; a newer one of the same texts takes the place of an older one. */
export function addChoices(kept: readonly TunedChoice[], added: readonly TunedChoice[]): TunedChoice[] {
  const isNew = ({ key, text }: TunedChoice) => added.some((a) => a.key === key && a.text === text);
  const all = [...kept.filter((choice) => !isNew(choice)), ...added];
  // The newest stand last.
  return all.filter(({ key }, i) =>
    all.slice(i + 1).filter((later) => later.key === key).length < KEPT_TEXTS
  );
}

/** Adds what was measured on a device to what is kept of it and of others. */
export function addMeasured(
  kept: readonly TunedDevice[],
  { device, choices }: Pick<TunedDevice, "device" | "choices">,
): TunedDevice[] {
  const others = kept.filter((k) => !isSameDevice(k.device, device));
  return [...others, { version: 1, device, choices: addChoices(choicesOf(kept, device), choices) }];
}

/** What gets most out of the device: operations and bytes a second, and the work in which it did. */
export interface PeakRates {
  readonly operations: { readonly rate: number; readonly key: string };
  readonly bytes: { readonly rate: number; readonly key: string };
}

/** The highest rates of what was measured; undefined where nothing was. */
export function peakRates(choices: readonly TunedChoice[]): PeakRates | undefined {
  const peak = (of: "flops" | "bytes") =>
    choices.map(({ key, seconds, [of]: work }) => ({ rate: work / seconds, key }))
      .filter(({ rate }) => Number.isFinite(rate))
      .reduce<{ rate: number; key: string } | undefined>(
        (best, r) => best && best.rate >= r.rate ? best : r,
        undefined,
      );
  const [operations, bytes] = [peak("flops"), peak("bytes")];
  return operations && bytes ? { operations, bytes } : undefined;
}

/** Of the newest measurement of each choice, the kernel: what plans may begin with. */
export function kernelsOf(choices: readonly TunedChoice[]): Record<string, string> {
  return Object.fromEntries(choices.map(({ key, kernel }) => [key, kernel]));
}

/** What a plan's choices are worth. */
export interface KnownChoices {
  /** What was measured of them, with the texts of today. */
  readonly known: readonly TunedChoice[];
  /** Choices that were not. */
  readonly missing: readonly ChosenKernel[];
}

/** Compares a plan's choices with what is kept of the device. */
export async function knownChoices(
  gpu: Gpu,
  choices: Iterable<ChosenKernel>,
  kept: readonly TunedChoice[],
): Promise<KnownChoices> {
  const known: TunedChoice[] = [];
  const missing: ChosenKernel[] = [];
  for (const choice of choices) {
    if (choice.candidates.length < 2) continue;
    const text = await kernelTexts(choice, gpu);
    const found = kept.findLast((k) => k.key === choice.key && k.text === text);
    if (found) known.push(found);
    else missing.push(choice);
  }
  return { known, missing };
}

/** What a measurement came to, in words. */
export function tunedText({ choices, left = 0, seconds }: {
  readonly choices: readonly TunedChoice[];
  readonly left?: number;
  readonly seconds: number;
}): string {
  const better = choices.filter(({ kernel, first }) => kernel !== first);
  const gain = Math.max(1, ...better.map(({ seconds, firstSeconds }) => firstSeconds / seconds));
  const refused = choices.flatMap(({ key, tried }) =>
    tried.flatMap(({ kernel, refused }) => refused === undefined ? [] : [`${kernel} for ${key}: ${refused}`])
  );
  return [
    `the device made ${choices.length} ${choices.length === 1 ? "choice" : "choices"} among kernels in ${
      seconds.toFixed(1)
    } s: ${
      choices.length === 0
        ? "nothing was timed to its end"
        : better.length === 0
        ? "those that stand first are best"
        : `${better.length} of them another than stands first, up to ${gain.toFixed(2)} times as fast`
    }`,
    ...(left > 0 ? [`${left} choices are left for later`] : []),
    ...(refused.length > 0 ? [`not to be used here: ${refused.join("; ")}`] : []),
  ].join("; ");
}
