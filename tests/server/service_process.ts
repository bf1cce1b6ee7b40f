/** Services in processes of their own, which can be killed, and readers that survive that. */
import type { RunEvent } from "../../src/distill/run/events.ts";

/** A service that runs. */
export interface ServiceProcess {
  readonly url: string;
  readonly pid: number;
  kill(signal: Deno.Signal): Promise<void>;
}

/**
 * Starts a service for a folder and waits until it listens.
 *
 * @param flags of Deno
 */
export async function startService(
  folder: string,
  port: number,
  flags: readonly string[] = [],
): Promise<ServiceProcess> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", ...flags, new URL("./served.ts", import.meta.url).pathname, folder, String(port)],
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (!text.includes("\n")) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the service did not start");
    text += value;
  }
  await reader.cancel();
  const told = JSON.parse(text.split("\n")[0]!);
  return {
    url: told.url.replace(/\/$/, ""),
    pid: child.pid,
    async kill(signal) {
      child.kill(signal);
      await child.status;
    },
  };
}

/** A port that is free at this moment. */
export function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return (listener.addr as Deno.NetAddr).port;
}

/** A reader with an EventSource's manners: connects again and says what it read last. Returns all that it saw. */
export async function readAll(
  url: string,
  id: string,
  { dropAfter = () => Infinity, delay = 0 }: { dropAfter?: () => number; delay?: number } = {},
): Promise<RunEvent[]> {
  const seen: RunEvent[] = [];
  for (;;) {
    const abort = new AbortController();
    let left = dropAfter();
    try {
      const response = await fetch(`${url}/v1/runs/${id}/events`, {
        headers: { Accept: "text/event-stream", "Last-Event-ID": String(seen.at(-1)?.seq ?? 0) },
        signal: abort.signal,
      });
      if (response.status === 204) return seen;
      if (!response.ok) throw new Error(String(response.status));
      let text = "";
      for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
        text += chunk;
        const events = text.split("\n\n");
        text = events.pop()!;
        for (const event of events) {
          const data = event.split("\n").find((line) => line.startsWith("data: "));
          if (!data) continue;
          seen.push(JSON.parse(data.slice(6)));
          if (delay) await new Promise((resolve) => setTimeout(resolve, delay));
          if (--left <= 0) abort.abort();
        }
      }
    } catch {
      // The service is gone for a while, or the reader has dropped the line.
    }
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
}

/** Sends JSON until the service answers; returns the answer. */
export async function post(
  url: string,
  path: string,
  body: unknown,
  key: string,
): Promise<Record<string, unknown>> {
  for (;;) {
    try {
      const response = await fetch(url + path, {
        method: "POST",
        headers: { "Content-Type": "application/json", "Idempotency-Key": key },
        body: JSON.stringify(body),
      });
      const told = await response.json();
      if (response.ok) return told;
      if (response.status < 500 && response.status !== 409) throw new TypeError(JSON.stringify(told));
    } catch (error) {
      if (error instanceof TypeError && error.message.startsWith("{")) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
}
