/**
 * `limbeck serve`
 *
 * @module
 */
import { DEFAULT_CAPS } from "../../server/caps.ts";
import { checkBinding, listen } from "../../server/listen.ts";
import { DEFAULT_RATE, Service } from "../../server/service.ts";
import { UsageError } from "../../base/errors.ts";
import { hubSettings } from "../../hub/hub_settings.ts";
import { UPLOAD_LIMITS } from "../../server/uploads.ts";
import { hostName } from "../../server/http/origin.ts";
import { isOpenToOthers, TokenList } from "../../server/auth/tokens.ts";
import type { LogLine } from "../../server/http/request_log.ts";
import type { Command, Invocation } from "../command.ts";
import { PROVIDER_FLAG } from "../provider_flag.ts";
import type { Output } from "../terminal/output.ts";
import { DATA_FLAG } from "../data_flag.ts";
import { PLUGIN_FLAGS } from "../setup/plugin_sources.ts";
import { ensureAdapter, thisMachine } from "../setup/setup.ts";
import { handleSignals } from "../terminal/watch_run.ts";

/** Serves runs over HTTP. */
export const serve: Command = {
  name: "serve",
  usage: "",
  positional: [0, 0],
  loadsPlugins: true,
  details:
    "Takes runs over HTTP and shows them on a page. Requests name models and data by the names they have in the folders given here; " +
    "the example that comes with Limbeck can always be named unless --no-example says otherwise. Without a token file it listens on this " +
    "machine only. Ctrl-C lets the current run save a checkpoint, from which the next service continues it.",
  flags: {
    host: { value: "ADDRESS", help: "Address to listen on (default 127.0.0.1)" },
    port: { value: "PORT", kind: "count", most: 65535, help: "Port to listen on (default 8787)" },
    ...DATA_FLAG,
    tokens: { value: "FILE", help: "File of tokens; `limbeck token NAME` makes a line of it" },
    models: { value: "FOLDER", many: true, help: "Folder whose models requests may name" },
    datasets: {
      value: "FOLDER",
      many: true,
      help: "Folder whose datasets (.jsonl, .json, .csv, .parquet) requests may name",
    },
    "no-example": { help: "Do not let requests name the example" },
    hub: {
      help:
        "Let requests name models of the hub (hf:ORG/NAME), which are fetched with this machine's token and kept in its cache",
    },
    "public-host": { value: "NAME", many: true, help: "Name under which others reach the service" },
    origin: { value: "ORIGIN", many: true, help: "Other site whose pages may use the service (CORS)" },
    rate: {
      value: "REQUESTS",
      kind: "number",
      above: 0,
      help:
        `Most requests a second of one token (default ${DEFAULT_RATE.perSecond}; four times as many at once)`,
    },
    queue: { value: "RUNS", kind: "count", least: 1, help: "Most runs that wait (default 1000)" },
    "max-steps": {
      value: "STEPS",
      kind: "count",
      least: 1,
      help: `Most steps of a run (default ${DEFAULT_CAPS.steps})`,
    },
    "max-tokens": {
      value: "TOKENS",
      kind: "count",
      least: 2,
      help: `Most tokens of a step (default ${DEFAULT_CAPS.tokensPerStep})`,
    },
    "max-rank": {
      value: "RANK",
      kind: "count",
      least: 1,
      help: `Largest rank (default ${DEFAULT_CAPS.rank})`,
    },
    "max-seconds": {
      value: "SECONDS",
      kind: "count",
      least: 1,
      help: `Most seconds of a run (default ${DEFAULT_CAPS.wallSeconds})`,
    },
    "max-gpu-bytes": { value: "BYTES", kind: "count", least: 1, help: "Most bytes of a run on the GPU" },
    "max-files-bytes": {
      value: "BYTES",
      kind: "count",
      least: 1,
      help: `Most bytes of files that one token uploads and keeps (default ${UPLOAD_LIMITS.ownerBytes})`,
    },
    "beside-runs": {
      help:
        "Try models while a run has the GPU too, instead of between runs; --max-gpu-bytes leaves them room",
    },
    watchdog: {
      value: "SECONDS",
      kind: "number",
      above: 0,
      help: "End a training process that is silent for so long (default: its recipe's, 120)",
    },
    ...PLUGIN_FLAGS,
    ...PROVIDER_FLAG,
    "no-tune": { help: "Have no run time kernels first; those that the device has chosen before are used" },
    "no-setup": { help: "Do not look for a GPU adapter first, and install nothing" },
  },
  examples: [
    "limbeck serve",
    "limbeck serve --models ./models --datasets ./datasets",
    "limbeck serve --host 0.0.0.0 --tokens tokens --public-host distill.example.org",
  ],
  run: (invocation) => runService(invocation),
};

/**
 * Serves until a signal comes.
 *
 * @param entry module of the trainer; tests hand in their own
 */
export async function runService(invocation: Invocation, entry?: string): Promise<number> {
  const { flags, out, plugins = [] } = invocation;
  const file = flags.text("tokens");
  const tokens = file === undefined ? new TokenList([]) : await TokenList.read(file);
  if (file !== undefined && await isOpenToOthers(file)) {
    out.warn(`others on this machine may read or change ${file}: \`chmod 600 ${file}\` ends that`);
  }
  const host = flags.text("host") ?? "127.0.0.1";
  const publicNames = publicHosts(flags.list("public-host"));
  // Before anything is begun: a service that starts works on what is queued.
  checkBinding(host, tokens, publicNames);
  // Whoever reaches it by its address asks for that; an address that stands for all of them is nobody's name.
  const hosts = [...(isEveryAddress(host) ? [] : [host]), ...publicNames];
  const origins = checkedOrigins(flags.list("origin"));
  const adapter = flags.on("no-setup") ? undefined : await ensureAdapter((message) => out.note(message));
  const [watchdog, rate] = [flags.number("watchdog"), flags.number("rate")];
  const service = await Service.start({
    ...(flags.text("data") === undefined ? {} : { dataFolder: flags.text("data")! }),
    tokens,
    models: flags.list("models"),
    datasets: flags.list("datasets"),
    example: !flags.on("no-example"),
    hosts,
    origins,
    ...(rate === undefined ? {} : { rate: { perSecond: rate, burst: Math.ceil(4 * rate) } }),
    queueLimit: flags.number("queue") ?? 1000,
    caps: {
      steps: flags.number("max-steps") ?? DEFAULT_CAPS.steps,
      tokensPerStep: flags.number("max-tokens") ?? DEFAULT_CAPS.tokensPerStep,
      rank: flags.number("max-rank") ?? DEFAULT_CAPS.rank,
      wallSeconds: flags.number("max-seconds") ?? DEFAULT_CAPS.wallSeconds,
      ...(flags.number("max-gpu-bytes") === undefined ? {} : { gpuBytes: flags.number("max-gpu-bytes")! }),
    },
    uploads: { ownerBytes: flags.number("max-files-bytes") ?? UPLOAD_LIMITS.ownerBytes },
    plugins,
    ...(flags.on("hub") ? { hub: { settings: hubSettings() } } : {}),
    besideRuns: flags.on("beside-runs"),
    ...(flags.on("no-tune") ? { tune: "never" as const } : {}),
    ...(Deno.stderr.isTerminal() && !out.json ? { log: inWords(out) } : {}),
    findGpu: async () => (adapter ?? await thisMachine().probe())?.name,
    ...(entry === undefined ? {} : { entry }),
    ...(watchdog === undefined ? {} : { watchdogSeconds: watchdog }),
  });
  let listening;
  try {
    listening = listen(service, { host, port: flags.number("port") ?? 8787 });
  } catch (error) {
    await service.close();
    throw error;
  }
  const { port } = listening;
  const shown = listening.host.includes(":") ? `[${listening.host}]` : listening.host;
  out.value({
    type: "listening",
    host: listening.host,
    port,
    url: `http://${shown}:${port}/`,
    data: service.store.folder,
  });
  out.line(`Limbeck listens on http://${shown}:${port}/ and keeps runs in ${service.store.folder}`);
  if (tokens.isEmpty) out.line("There is no token file: everyone on this machine may use it.");
  if (isEveryAddress(host) && flags.list("public-host").length === 0) {
    out.line("It answers to names of this machine only; --public-host NAME adds the one that others use.");
  }
  const asked = Promise.withResolvers<number>();
  using _signals = handleSignals({
    first() {
      out.line("Ending: the current run saves a checkpoint. Ctrl-C again ends at once.");
      asked.resolve(30);
    },
    second: () => Deno.exit(130),
  });
  await listening.close(await asked.promise);
  return 0;
}

function isEveryAddress(host: string): boolean {
  return /^[0.]+$/.test(host) || /^[0:]+$/.test(host);
}

/** Names without a port, which the check of the Host header leaves aside. */
function publicHosts(names: readonly string[]): string[] {
  return names.map((name) => {
    const host = hostName(name);
    if (host === undefined) {
      throw new UsageError(`--public-host must be a name such as distill.example.org, not "${name}"`);
    }
    return host;
  });
}

/** Origins as browsers write them; any other would never match. */
function checkedOrigins(origins: readonly string[]): string[] {
  for (const origin of origins) {
    const url = URL.parse(origin);
    if (url === null || url.origin !== origin) {
      const meant = url === null || url.origin === "null" ? "https://lab.example" : url.origin;
      throw new UsageError(`--origin must be an origin such as ${meant}, not "${origin}"`);
    }
  }
  return [...origins];
}

/** On a terminal, what happens to runs and what goes wrong; requests are for machines that read the log. */
function inWords(out: Output): LogLine {
  return ({ level, message, run, status, route }) => {
    if (message === "request") {
      if (level === "error") out.warn(`${route} was answered ${status}`);
      return;
    }
    const text = run === undefined ? String(message) : `${run}: ${message}`;
    if (level === "info") out.note(text);
    else out.warn(text);
  };
}
