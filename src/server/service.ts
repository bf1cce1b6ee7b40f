/**
 * All that the routes of a service share, from its start to its end.
 *
 * @module
 */
import { builtins } from "../../plugins/mod.ts";
import type { RunEvent } from "../distill/run/events.ts";
import type { FetchOptions } from "../hub/fetch_model.ts";
import type { Registry } from "../registry/registry.ts";
import { openStore } from "../runs/store/data_folder.ts";
import { type PluginModule, registryOf } from "../registry/exported_plugins.ts";
import { Inspector } from "../runs/child/inspection.ts";
import { identifyPlugins } from "../runs/child/plugin_identity.ts";
import { writeReport } from "../runs/report/report.ts";
import { Scheduler } from "../runs/supervise/scheduler.ts";
import { uploadFolder } from "../runs/store/layout.ts";
import { removeRun, settle } from "../runs/store/run_folder.ts";
import type { RunManifest, Store, StoredRun } from "../runs/store/store.ts";
import { RunStateError } from "../runs/store/store_errors.ts";
import { type Caps, DEFAULT_CAPS } from "./caps.ts";
import { Catalogue, type CatalogueOptions } from "./catalogue.ts";
import { SharedInference } from "./gpu_share.ts";
import { Counters } from "./http/counters.ts";
import type { RateLimit } from "./http/rate_limit.ts";
import { type LogLine, logToStderr } from "./http/request_log.ts";
import { Idempotency } from "./idempotency.ts";
import { Sessions } from "./auth/sessions.ts";
import { Streams } from "./http/streams.ts";
import { TokenList } from "./auth/tokens.ts";
import { type UploadLimits, Uploads } from "./uploads.ts";
import type { RunTuning } from "../distill/run/events.ts";
import { readTuned } from "../runs/store/tuned_files.ts";
import type { TunedDevice } from "../tune/tuned.ts";

/** How a service is set up. */
export interface ServiceOptions extends CatalogueOptions {
  readonly dataFolder?: string;
  /** Who may use it; without tokens everyone may do everything. */
  readonly tokens?: TokenList;
  /** Names in the Host header that it answers to, beside those of this machine. */
  readonly hosts?: readonly string[];
  /** Other origins whose pages may use it (CORS). */
  readonly origins?: readonly string[];
  readonly caps?: Partial<Caps>;
  /** Whether models are tried while a run has the GPU too; runs should then be bounded by `caps.gpuBytes`. */
  readonly besideRuns?: boolean;
  /** Runs that may wait (default 1000). */
  readonly queueLimit?: number;
  readonly rate?: RateLimit;
  /** Most bytes of a body of JSON. */
  readonly bodyBytes?: number;
  /** Bounds of what is uploaded. */
  readonly uploads?: Partial<UploadLimits>;
  /** Modules with losses, adapters, merges and families that requests may name. */
  readonly plugins?: readonly PluginModule[];
  /** Fetches models of the hub that requests name, and says how; such names are refused when absent. */
  readonly hub?: FetchOptions;
  readonly log?: LogLine;
  /** Finds the name of the GPU adapter in another process; this one stays free of drivers. */
  readonly findGpu?: () => Promise<string | undefined>;
  /** Module that exports `main(plugins)`; tests hand in their own. */
  readonly entry?: string;
  readonly watchdogSeconds?: number;
  /** Whether runs time kernels that the device has not chosen among yet (default `auto`: where a GPU does the work). */
  readonly tune?: RunTuning["measure"];
}

/** Requests a second, and at once, of one identity, where the operator says nothing. */
export const DEFAULT_RATE: RateLimit = { perSecond: 100, burst: 400 };

/** How long what devices have chosen is believed without another look at the disk, milliseconds. */
const TUNED_MS = 5000;

/** A service. */
export class Service {
  readonly store: Store;
  readonly uploads: Uploads;
  readonly catalogue: Catalogue;
  readonly registry: Registry;
  /** Modules of the registry that are not built in. */
  readonly plugins: RunManifest["plugins"];
  readonly scheduler: Scheduler;
  readonly tokens: TokenList;
  readonly sessions = new Sessions();
  readonly idempotency: Idempotency;
  readonly inspector = new Inspector();
  readonly inference: SharedInference;
  readonly streams = new Streams();
  readonly counters: Counters;
  readonly caps: Caps;
  /** How models of the hub are fetched; undefined where they are refused. */
  readonly hub: FetchOptions | undefined;
  readonly queueLimit: number;
  readonly rate: RateLimit;
  readonly bodyBytes: number;
  readonly hosts: ReadonlySet<string>;
  readonly origins: ReadonlySet<string>;
  readonly log: LogLine;
  readonly #findGpu: () => Promise<string | undefined>;
  #gpu: string | undefined;
  #tuned: { read: number; devices: Promise<readonly TunedDevice[]> } | undefined;
  #closing: Promise<void> | undefined;

  private constructor(
    options: ServiceOptions,
    parts: Pick<
      Service,
      "store" | "uploads" | "catalogue" | "registry" | "plugins" | "scheduler" | "counters"
    >,
  ) {
    this.store = parts.store;
    this.uploads = parts.uploads;
    this.catalogue = parts.catalogue;
    this.registry = parts.registry;
    this.plugins = parts.plugins;
    this.scheduler = parts.scheduler;
    this.counters = parts.counters;
    this.idempotency = new Idempotency(parts.store);
    this.tokens = options.tokens ?? new TokenList([]);
    this.inference = new SharedInference({
      store: parts.store,
      besideRuns: options.besideRuns ?? false,
      tuned: () => this.tuned(),
    });
    this.caps = { ...DEFAULT_CAPS, ...options.caps };
    this.hub = options.hub;
    this.queueLimit = options.queueLimit ?? 1000;
    this.rate = options.rate ?? DEFAULT_RATE;
    this.bodyBytes = options.bodyBytes ?? 1 << 20;
    this.hosts = new Set([
      "localhost",
      "127.0.0.1",
      "::1",
      ...(options.hosts ?? []).map((h) => h.toLowerCase()),
    ]);
    this.origins = new Set(options.origins);
    this.log = options.log ?? logToStderr;
    this.#findGpu = options.findGpu ?? (() => Promise.resolve(undefined));
  }

  /**
   * Opens the store, takes up what an earlier service left, and begins to work on what is queued.
   *
   * @throws {InputError} a folder, a plugin or the store cannot be used, or another service works on the data folder
   */
  static async start(options: ServiceOptions = {}): Promise<Service> {
    const { plugins = [], log = logToStderr } = options;
    const registry = await registryOf(builtins, plugins);
    const identified = await identifyPlugins(plugins.map(({ path }) => path));
    const store = openStore(options.dataFolder);
    try {
      const uploads = new Uploads(uploadFolder(store), options.uploads);
      const catalogue = await Catalogue.open(options, store, uploads);
      const counters = new Counters();
      const scheduler = await Scheduler.start({
        store,
        wallSeconds: options.caps?.wallSeconds ?? DEFAULT_CAPS.wallSeconds,
        ...(options.hub === undefined ? {} : { hub: options.hub }),
        ...(options.entry === undefined ? {} : { entry: options.entry }),
        ...(options.watchdogSeconds === undefined ? {} : { watchdogSeconds: options.watchdogSeconds }),
        ...(options.tune === undefined ? {} : { tune: options.tune }),
        onEvent: (id, event) => tell(log, counters, id, event),
        onRest: async ({ id, folder }) => {
          await writeReport(folder).catch((error) => log({ level: "warn", message: String(error), run: id }));
        },
        onError: (error) => log({ level: "error", message: String(error) }),
      });
      // Not before: until then another service may work on the folder.
      await uploads.clean();
      return new Service(options, {
        store,
        uploads,
        catalogue,
        registry,
        plugins: identified,
        scheduler,
        counters,
      });
    } catch (error) {
      store.close();
      throw error;
    }
  }

  /** Name of the GPU adapter that runs will use; undefined where there is none. Looked for until it was found once. */
  async gpu(): Promise<string | undefined> {
    return this.#gpu ??= await this.#findGpu();
  }

  /** What the devices of this machine have chosen among kernels, as it was some seconds ago at most. */
  tuned(): Promise<readonly TunedDevice[]> {
    const now = performance.now();
    if (!this.#tuned || now - this.#tuned.read > TUNED_MS) {
      this.#tuned = { read: now, devices: readTuned(this.store.folder) };
    }
    return this.#tuned.devices;
  }

  /**
   * Removes a run at rest and its folder.
   *
   * @throws {RunStateError} someone works on it or is to
   */
  async removeRun(found: StoredRun): Promise<void> {
    const run = await settle(this.store, found);
    if (run.state === "running" || run.state === "queued") {
      throw new RunStateError(run.id, run.state, "be removed");
    }
    await removeRun(this.store, run);
  }

  /** Whether it has begun to end. */
  get isClosing(): boolean {
    return this.#closing !== undefined;
  }

  /**
   * Ends the streams of readers first, lets the current run save a checkpoint, and closes the store.
   *
   * @param seconds after which the run's process is killed
   */
  close(seconds = 30): Promise<void> {
    return this.#closing ??= (async () => {
      this.streams.close();
      this.inspector.close();
      await Promise.all([this.inference.close(), this.scheduler.close(seconds)]);
      this.store.close();
    })();
  }
}

function tell(log: LogLine, counters: Counters, id: string, event: RunEvent): void {
  counters.count("limbeck_events_total", { type: event.type });
  if (event.type === "state") {
    counters.count("limbeck_run_states_total", { state: event.state });
    log({ level: "info", message: `run is ${event.state}`, run: id, attempt: event.attempt });
  }
  if (event.type === "error") log({ level: "error", message: event.message, code: event.code, run: id });
}
