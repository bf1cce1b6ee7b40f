/**
 * Events in words, for logs.
 *
 * @module
 */
import type { RunEvent } from "../../distill/run/events.ts";
import { tunedText } from "../../tune/tuned.ts";

/** An event as a sentence or two. */
export function eventText(event: RunEvent): string {
  switch (event.type) {
    case "state":
      return event.message ? `The run is ${event.state}: ${event.message}` : `The run is ${event.state}`;
    case "metrics":
      return `Step ${event.step}: training loss ${event.loss?.toFixed(4) ?? "not finite"}`;
    case "evaluation":
      return `Step ${event.step}: held-out loss of the ${event.model} ${
        event.loss?.toFixed(4) ?? "not finite"
      }`;
    case "shapes":
      return `Step ${event.step}: held-out losses of the shapes ${
        event.shapes.map(({ name, loss }) => `${name} ${loss?.toFixed(4) ?? "not finite"}`).join("; ")
      }`;
    case "teachers":
      return `Training samples by teacher: ${
        event.teachers.map(({ name, samples, tokens }) => `${name} ${samples} (${tokens} tokens)`).join("; ")
      }`;
    case "checkpoint":
      return `Checkpoint saved after step ${event.step}`;
    case "sample":
      return `The ${event.model} wrote: ${event.prompt}${event.text}`;
    case "rollout":
      return `Step ${event.step}: ${event.answers} answers of the student, ${
        event.meanLength.toFixed(1)
      } tokens each, entropy ${event.entropy?.toFixed(2) ?? "not finite"}`;
    case "rewind":
      return `Continuing after step ${Math.max(0, event.step)}`;
    case "plan":
      return `Planned: ${event.steps} steps, ${event.totalBytes} bytes on ${event.adapterName}${
        event.provider ? ` through ${event.provider}` : ""
      }`;
    case "result":
      return `Done after ${event.result.steps} steps`;
    case "progress":
      return `${event.step} %: ${event.message}`;
    case "tuned":
      return tunedText(event);
    case "stage":
    case "warning":
    case "error":
      return event.message;
    default:
      return event.type;
  }
}
