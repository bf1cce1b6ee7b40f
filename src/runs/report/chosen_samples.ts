/**
 * Which of a run's sample texts are shown.
 *
 * @module
 */
import type { RunEvent, SampleEvent } from "../../distill/run/events.ts";

/** The last sample of the first prompt from each model, before and after. */
export function chosenSamples(events: readonly RunEvent[]): { name: string; sample: SampleEvent }[] {
  const samples = events.filter((event) => event.type === "sample");
  const prompt = samples[0]?.prompt;
  const of = (model: string, fits: (step: number) => boolean) =>
    samples.findLast((sample) => sample.model === model && sample.prompt === prompt && fits(sample.step));
  const chosen: [string, SampleEvent | undefined][] = [
    ["teacher", of("teacher", () => true)],
    ["student before", of("student", (step) => step === 0)],
    ["student after", of("student", (step) => step > 0)],
  ];
  return chosen.flatMap(([name, sample]) => sample ? [{ name, sample }] : []);
}
