/**
 * What the service costs, and a soak that kills it.
 *
 *   deno run -A bench/service.ts              figures; or only some: start-up, submits, readers, memory, watched
 *   deno run -A bench/service.ts --soak 600   kills of the service and its children at random moments, for so many seconds
 *
 * The load is made with a trainer without a model (tests/runs/fake_trainer.ts), so that the service is what is measured; the step time
 * of a run that is watched is measured with the example's real one.
 *
 * @module
 */
import type { RunEvent } from "../src/distill/run/events.ts";
import { openStore } from "../src/runs/store/data_folder.ts";
import { isEnd } from "../src/runs/store/run_states.ts";
import { processesWith } from "../tests/processes.ts";
import { fakeNamed, prepare } from "../tests/server/harness.ts";
import {
  freePort,
  post,
  readAll,
  type ServiceProcess,
  startService,
} from "../tests/server/service_process.ts";

const wait = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const median = (values: number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;

async function withFolder<T>(fn: (folder: string) => Promise<T>): Promise<T> {
  const folder = await Deno.makeTempDir({ prefix: "limbeck-bench-" });
  await prepare(folder);
  await Deno.mkdir(`${folder}/data/model`, { recursive: true });
  try {
    return await fn(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Resident memory of a process, bytes. */
async function resident(pid: number): Promise<number> {
  const status = await Deno.readTextFile(`/proc/${pid}/status`);
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)![1]) * 1024;
}

const megabytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(0)} MiB`;

async function startUp(): Promise<void> {
  await withFolder(async (folder) => {
    const seconds: number[] = [];
    let service: ServiceProcess | undefined;
    for (let i = 0; i < 5; i++) {
      await service?.kill("SIGTERM");
      const begun = performance.now();
      service = await startService(folder, freePort());
      await (await fetch(`${service.url}/healthz`)).text();
      seconds.push((performance.now() - begun) / 1000);
    }
    await wait(2000);
    const before = await cpuSeconds(service!.pid);
    await wait(5000);
    console.log(`start-up              ${median(seconds).toFixed(2)} s until it answers (median of 5)`);
    console.log(`idle memory           ${megabytes(await resident(service!.pid))}`);
    console.log(
      `idle CPU              ${((await cpuSeconds(service!.pid) - before) / 5 * 100).toFixed(2)} % of a core`,
    );
    await service!.kill("SIGTERM");
  });
}

async function submits(count: number, atOnce: number): Promise<void> {
  await withFolder(async (folder) => {
    const service = await startService(folder, freePort());
    const slow = await post(service.url, "/v1/runs", { recipe: fakeNamed({ pace: 1000 }, 10_000) }, "first");
    let next = 0;
    const acknowledged: string[] = [];
    const begun = performance.now();
    await Promise.all(Array.from({ length: atOnce }, async () => {
      while (next < count) {
        const key = `key-${next++}`;
        acknowledged.push(
          String((await post(service.url, "/v1/runs", { recipe: fakeNamed({}, 1) }, key)).id),
        );
      }
    }));
    const seconds = (performance.now() - begun) / 1000;
    // What was acknowledged is there even when the machine's last word was the acknowledgement.
    await service.kill("SIGKILL");
    using store = openStore(`${folder}/service`);
    const kept = new Set(await store.ids());
    const lost = acknowledged.filter((id) => !kept.has(id)).length;
    console.log(
      `submits               ${
        (count / seconds).toFixed(0)
      } a second acknowledged and durable (${count}, ${atOnce} at once); ${lost} lost after kill -9`,
    );
    await killRuns(`${folder}/service/runs/${slow.id}/`);
  });
}

/** Ends the processes of runs in a folder. */
async function killRuns(folder: string): Promise<void> {
  for (const id of await processesWith(folder)) {
    try {
      Deno.kill(id, "SIGKILL");
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
}

async function readers(count: number, steps: number): Promise<void> {
  await withFolder(async (folder) => {
    const service = await startService(folder, freePort());
    const { id } = await post(service.url, "/v1/runs", { recipe: fakeNamed({}, steps) }, "k");
    // Long enough for the run to end: all of its log is then sent to each reader as fast as it reads.
    let state = "";
    while (!isEnd(state as "failed")) {
      await wait(100);
      state = (await (await fetch(`${service.url}/v1/runs/${id}`)).json()).state;
    }
    const begun = performance.now();
    const seen = await Promise.all(Array.from({ length: count }, () => readAll(service.url, String(id))));
    const seconds = (performance.now() - begun) / 1000;
    const events = seen.reduce((sum, events) => sum + events.length, 0);
    console.log(
      `events                ${
        Math.round(events / seconds).toLocaleString("en")
      } a second to ${count} readers (${seen[0]!.length} each)`,
    );
    await service.kill("SIGTERM");
  });
}

/** Runs of the fake trainer one after another, and what the service holds in memory: garbage is collected every second. */
async function slope(runs: number): Promise<void> {
  await withFolder(async (folder) => {
    const service = await startService(folder, freePort(), ["--v8-flags=--expose-gc"]);
    const sizes: number[] = [];
    for (let i = 0; i < runs; i++) {
      const { id } = await post(service.url, "/v1/runs", { recipe: fakeNamed({}, 50) }, `k${i}`);
      await readAll(service.url, String(id));
      sizes.push(await resident(service.pid));
    }
    // The heap grows to its working size first; what goes on growing after that is a leak.
    const quarter = Math.floor(runs / 4);
    const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length;
    const perRun = (mean(sizes.slice(-quarter)) - mean(sizes.slice(-2 * quarter, -quarter))) / quarter;
    console.log(
      `memory over ${runs} runs  ${megabytes(sizes[0]!)} after the first, ${
        megabytes(sizes.at(-2 * quarter)!)
      } in the middle, ${megabytes(sizes.at(-1)!)} after the last: ${
        (perRun / 1024).toFixed(1)
      } KiB a run in the last half`,
    );
    await service.kill("SIGTERM");
  });
}

/**
 * What readers cost a run: the CPU time of the service while the example's real run trains, alone and read by some. The run is another
 * process, so this is all that it can lose to them; its step time on a software GPU varies by more.
 */
async function watched(readerCounts: readonly number[]): Promise<void> {
  const root = new URL("..", import.meta.url).pathname;
  const folder = await Deno.makeTempDir({ prefix: "limbeck-bench-" });
  const port = freePort();
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "-A", `${root}/src/cli/main.ts`, "serve", "--data", folder],
      ...["--port", String(port), "--no-setup", "--json"],
    ],
    stdout: "piped",
    stderr: "null",
  }).spawn();
  await child.stdout.getReader().read();
  const url = `http://127.0.0.1:${port}`;
  // One row is enough to measure on: the steps are what counts here.
  const form = new FormData();
  form.set("purpose", "fine-tune");
  form.set("file", new File(['{"text":"Once upon a time, there was a little dog."}\n'], "row.jsonl"));
  const heldOut = (await (await fetch(`${url}/v1/files`, { method: "POST", body: form })).json()).id;
  const recipe = {
    teacher: { model: "stories15M-q8_0.gguf" },
    student: { model: "teacher", layers: [0, 1, 3, 5] },
    data: { train: "stories-train", heldOut, contextLength: 256, endToken: "bos" },
    train: { steps: 40, tokensPerMicroBatch: 256, evaluateEvery: 0, checkpointEvery: 0, warmup: 0 },
    samples: { tokens: 0 },
    output: { merged: false },
  };
  for (const [i, count] of readerCounts.entries()) {
    const { id } = await post(url, "/v1/runs", { recipe }, `k${i}`);
    const before = await cpuSeconds(child.pid);
    const reading = Array.from({ length: count }, () => readAll(url, String(id)));
    let state = "";
    while (!isEnd(state as "failed")) {
      await wait(2500);
      state = (await (await fetch(`${url}/v1/runs/${id}`)).json()).state;
    }
    const used = await cpuSeconds(child.pid) - before;
    await Promise.all(reading);
    const { training } = await (await fetch(`${url}/v1/runs/${id}/metrics`)).json();
    const step = median(training.slice(4).map((row: { secondsPerStep: number }) => row.secondsPerStep));
    console.log(
      `a run with ${String(count).padStart(2)} readers ${
        (used / training.length * 1000).toFixed(1)
      } ms of the service's CPU a step of ${step.toFixed(2)} s: ${
        (used / training.length / step * 100).toFixed(2)
      } %`,
    );
  }
  child.kill("SIGTERM");
  await child.status;
  await Deno.remove(folder, { recursive: true });
}

/** CPU time of a process so far. */
async function cpuSeconds(pid: number): Promise<number> {
  const stat = (await Deno.readTextFile(`/proc/${pid}/stat`)).split(" ");
  return (Number(stat[13]) + Number(stat[14])) / 100;
}

/** Kills at random moments; afterwards every acknowledged run must be whole and every reader must have seen its log. */
async function soak(seconds: number): Promise<void> {
  await withFolder(async (folder) => {
    const port = freePort();
    let service = await startService(folder, port);
    const { url } = service;
    const end = performance.now() + seconds * 1000;
    const ids: string[] = [];
    const logs: Promise<RunEvent[]>[] = [];
    const counts = { service: 0, child: 0, term: 0 };
    let submitting = true;
    const submitter = (async () => {
      for (let i = 0; submitting; i++) {
        const recipe = fakeNamed({ pace: 5 + Math.floor(Math.random() * 10) }, 40);
        const { id } = await post(url, "/v1/runs", { recipe }, `key-${i}`);
        ids.push(String(id));
        const dropAfter = () => i % 2 === 0 ? Infinity : 1 + Math.random() * 30;
        logs.push(readAll(url, String(id), { dropAfter }));
        await wait(500 + Math.random() * 1500);
      }
    })();
    while (performance.now() < end) {
      await wait(500 + Math.random() * 3500);
      const dice = Math.random();
      if (dice < 0.4) {
        counts.child++;
        await killRuns(`${folder}/service/runs/`);
      } else {
        const signal = dice < 0.8 ? "SIGKILL" : "SIGTERM";
        counts[signal === "SIGKILL" ? "service" : "term"]++;
        await service.kill(signal);
        await wait(Math.random() * 1000);
        service = await startService(folder, port);
      }
    }
    submitting = false;
    await submitter;
    const seen = await Promise.all(logs);
    await service.kill("SIGTERM");
    using store = openStore(`${folder}/service`);
    const ends: Record<string, number> = {};
    const problems: string[] = [];
    for (const [i, id] of ids.entries()) {
      const run = await store.get(id);
      const events = await store.events(id);
      if (!run) problems.push(`${id}: lost`);
      else ends[run.state] = (ends[run.state] ?? 0) + 1;
      if (!events.every(({ seq }, i) => seq === i + 1)) problems.push(`${id}: numbers with gaps`);
      if (events.filter((event) => event.type === "state" && isEnd(event.state)).length !== 1) {
        problems.push(`${id}: not one end`);
      }
      if (JSON.stringify(seen[i]) !== JSON.stringify(events)) {
        problems.push(`${id}: a reader saw something else`);
      }
      const held = (await store.events(id, { types: ["metrics"], holding: true })).length;
      if (run?.state === "succeeded" && held !== 40) problems.push(`${id}: ${held} steps of 40`);
    }
    console.log(
      `soak                  ${seconds} s: ${ids.length} runs (${
        Object.entries(ends).map(([state, n]) => `${n} ${state}`).join(", ")
      }), ${counts.service} kills of the service with SIGKILL, ${counts.term} with SIGTERM, ${counts.child} of children`,
    );
    console.log(
      problems.length === 0
        ? "                      every run whole, every reader saw its log"
        : problems.join("\n"),
    );
    if (problems.length > 0) Deno.exitCode = 1;
  });
}

if (import.meta.main) {
  if (Deno.args[0] === "--soak") await soak(Number(Deno.args[1] ?? 600));
  else {
    console.log(
      `${
        new Date().toISOString().slice(0, 10)
      }, Deno ${Deno.version.deno}, ${navigator.hardwareConcurrency} cores`,
    );
    const parts: Record<string, () => Promise<void>> = {
      "start-up": startUp,
      submits: () => submits(1000, 16),
      readers: async () => {
        await readers(1, 2000);
        await readers(50, 2000);
      },
      memory: () => slope(400),
      watched: () => watched([0, 1, 50]),
    };
    for (const [name, part] of Object.entries(parts)) {
      if (Deno.args.length === 0 || Deno.args.includes(name)) await part();
    }
  }
}
