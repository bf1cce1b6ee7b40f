/**
 * Several kernels for one shape of an op. Which of them is fastest is for the device to say, so an op names those that can run, the one
 * to take where nothing was measured first, and planning takes the one that was found best on the device, if any
 * (`DeviceDescription.kernels`). What was taken stands in the plan, so that a run that is resumed computes with the same kernels.
 *
 * @module
 */
import type { DeviceDescription } from "../gpu/description.ts";
import type { Graph, TrialInputs, Variants } from "./graph.ts";

/** One of the kernels that there are for a shape; see {@linkcode Variants}. */
export interface CandidateKernel {
  readonly name: string;
  /** Seconds, by a model of the device: an order, no forecast. */
  readonly cost: number;
  /** Bytes moved in all. */
  readonly traffic: number;
}

/** A choice that a plan has made. */
export interface ChosenKernel {
  /** Kind and class of shapes. */
  readonly key: string;
  /** Name of the variant. */
  readonly chosen: string;
  /** Those that there were, the one to take where nothing was measured first. */
  readonly candidates: readonly CandidateKernel[];
  /** How often the plan uses it. */
  readonly uses: number;
  /** Traces a block that runs the op in the shape that was met first; returns what some of its inputs must hold, by name. */
  trial(graph: Graph): TrialInputs;
}

/** Of choices, the kernels that are others than stand first, by what they are for. */
export function othersThanFirst(chosen: ReadonlyMap<string, ChosenKernel>): Record<string, string> {
  const others = [...chosen].filter(([, { chosen, candidates }]) => chosen !== candidates[0]!.name);
  return Object.fromEntries(others.map(([key, { chosen }]) => [key, chosen]));
}

/** The variant that a device would use for a shape that is the first of its class; see {@linkcode KernelChooser.choose}. */
export function preferred<S, V>(
  variants: Omit<Variants<S, V>, "trial">,
  shape: S,
  device: DeviceDescription,
): V {
  const wanted = device.kernels?.[keyOf(variants, shape)];
  const candidates = variants.candidates(shape, device);
  return candidates.find((v) => variants.name(v) === wanted) ?? candidates[0]!;
}

function keyOf<S, V>(variants: Omit<Variants<S, V>, "trial">, shape: S): string {
  return `${variants.kind} ${variants.shapeClass(shape)}`;
}

/** Chooses while a program is planned, and keeps what was chosen. */
export class KernelChooser {
  readonly #device: DeviceDescription;
  readonly #chosen = new Map<string, ChosenKernel & { uses: number }>();

  constructor(device: DeviceDescription) {
    this.#device = device;
  }

  /** Choices so far, by key. */
  get chosen(): ReadonlyMap<string, ChosenKernel> {
    return this.#chosen;
  }

  /** The variant to use for a shape: the device's own choice, or the first candidate where it has none that can run. */
  choose<S, V>(variants: Variants<S, V>, shape: S): V {
    const key = keyOf(variants, shape);
    const candidates = variants.candidates(shape, this.#device);
    const known = this.#chosen.get(key);
    // What the first shape of a class got, the others get too, or a plan made again from the names of the first would differ from it.
    const wanted = known?.chosen ?? this.#device.kernels?.[key];
    const found = candidates.find((v) => variants.name(v) === wanted) ?? candidates[0]!;
    if (known) known.uses++;
    else {
      this.#chosen.set(key, {
        key,
        uses: 1,
        chosen: variants.name(found),
        candidates: candidates.map((v) => ({
          name: variants.name(v),
          cost: variants.cost(shape, v, this.#device),
          traffic: variants.traffic(shape, v),
        })),
        trial: (graph) => variants.trial(graph, shape) ?? {},
      });
    }
    return found;
  }
}

/** A size, rounded up to one of four steps an octave: sizes that differ by less want the same kernel. Up to 64 each is its own. */
export function sizeClass(size: number): number {
  if (size <= 64) return size;
  const step = 2 ** (Math.floor(Math.log2(size - 1)) - 2);
  return Math.ceil(size / step) * step;
}
