/** Measurements that nobody made. */
import type { DeviceIdentity, TunedChoice } from "../../src/tune/tuned.ts";

/** A device of that name. */
export function tunedDevice(name: string): DeviceIdentity {
  return {
    ...{ name, vendor: "v", architecture: "a", device: "d", description: name, runtime: "r" },
    ...{ software: false, processors: 0, features: ["subgroups"], limits: { maxBufferSize: 1024 } },
  };
}

/** A choice in which the other of two kernels was found best. */
export function tunedChoice(key: string, changed: Partial<TunedChoice> = {}): TunedChoice {
  return {
    ...{ key, text: "t", kernel: "b", first: "a", seconds: 1e-3, firstSeconds: 2e-3, flops: 2e9, bytes: 1e6 },
    ...{ candidates: 2, tried: [{ kernel: "b", ratio: 0.5 }] },
    ...changed,
  };
}
