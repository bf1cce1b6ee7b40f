/** Services in temporary folders, with the fake trainer in place of the real one. */
import { createApp } from "../../src/server/app.ts";
import { listen, type Listening } from "../../src/server/listen.ts";
import { Service, type ServiceOptions } from "../../src/server/service.ts";
import { fakeEntry, withFolder } from "../runs/fake_run.ts";
import type { Fault } from "../runs/fake_trainer.ts";

/** A service and how to talk to it. */
export interface TestService {
  readonly folder: string;
  readonly service: Service;
  /** Sends a request without a socket; the answer's JSON. */
  call(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Answer>;
  request(path: string, init?: RequestInit): Promise<Response>;
}

/** An answer. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  /** Parsed JSON, or text: each test looks at the fields that it expects. */
  readonly body: ReturnType<typeof JSON.parse>;
}

/** Calls `fn` with a service whose trainer is fake, and ends it. */
export function withService(
  fn: (test: TestService) => Promise<void>,
  options: ServiceOptions = {},
): Promise<void> {
  return withFolder(async (folder) => {
    await prepare(folder);
    const service = await Service.start({ ...defaults(folder), ...options });
    const app = createApp(service);
    const request = async (path: string, init: RequestInit = {}) => await app.request(path, init);
    try {
      await fn({
        folder,
        service,
        request,
        async call(method, path, body, headers = {}) {
          const response = await request(path, {
            method,
            headers: { ...(body === undefined ? {} : { "Content-Type": "application/json" }), ...headers },
            ...(body === undefined ? {} : { body: JSON.stringify(body) }),
          });
          const text = await response.text();
          const isJson = response.headers.get("Content-Type")?.startsWith("application/json");
          return {
            status: response.status,
            headers: response.headers,
            body: isJson ? JSON.parse(text) : text,
          };
        },
      });
    } finally {
      await service.close(2);
    }
  });
}

/** Calls `fn` with a service on a port of this machine. */
export function withListening(
  fn: (test: { url: string; service: Service; listening: Listening; folder: string }) => Promise<void>,
  options: ServiceOptions = {},
): Promise<void> {
  return withFolder(async (folder) => {
    await prepare(folder);
    const service = await Service.start({ ...defaults(folder), ...options });
    const listening = listen(service, { host: "127.0.0.1", port: 0 });
    try {
      await fn({ url: `http://127.0.0.1:${listening.port}`, service, listening, folder });
    } finally {
      await listening.close(2);
    }
  });
}

/** Folders of models and datasets whose names {@linkcode fakeNamed} uses. */
export async function prepare(folder: string): Promise<void> {
  await Deno.mkdir(`${folder}/models/model`, { recursive: true });
  await Deno.writeTextFile(`${folder}/models/model/config.json`, "{}");
  await Deno.mkdir(`${folder}/datasets`, { recursive: true });
  await Deno.writeTextFile(`${folder}/datasets/train.jsonl`, '{"text":"once"}\n');
}

/** Options of a service in a folder. */
export function defaults(folder: string): ServiceOptions {
  return {
    dataFolder: `${folder}/service`,
    models: [`${folder}/models`],
    datasets: [`${folder}/datasets`],
    example: false,
    entry: fakeEntry,
    log: () => {},
    findGpu: () => Promise.resolve("a fake GPU"),
    rate: { perSecond: 1e6, burst: 1e6 },
  };
}

/** A recipe of the fake trainer, as a request names things. The fault travels in a field that real losses do not have. */
export function fakeNamed(fault: Fault = {}, steps = 12) {
  return {
    teacher: { model: "model" },
    student: { model: "teacher" },
    data: { train: "train.jsonl" },
    objective: [{
      loss: "cross-entropy",
      ...(Object.keys(fault).length > 0 ? { source: JSON.stringify(fault) } : {}),
    }],
    train: { steps, warmup: 0 },
  };
}

/** Submits a recipe; returns the run's id. */
export async function submit(
  test: Pick<TestService, "call">,
  recipe: unknown = fakeNamed(),
): Promise<string> {
  const { status, body } = await test.call("POST", "/v1/runs", { recipe });
  if (status !== 202) throw new Error(`${status} ${JSON.stringify(body)}`);
  return body.id;
}

/** Waits until a run is in one of some states. */
export async function until(service: Service, id: string, ...states: string[]): Promise<void> {
  const arrived = Promise.withResolvers<void>();
  const look = async () => {
    const run = await service.store.get(id);
    if (run && states.includes(run.state)) arrived.resolve();
  };
  using _listening = service.store.onChange(look);
  await look();
  await arrived.promise;
}

/** Waits until nothing is queued or worked on. */
export async function untilIdle({ store, scheduler }: Service): Promise<void> {
  while (scheduler.current !== undefined || await store.countQueued() > 0) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
