/**
 * Where the hub is, where its files are kept and who asks: the same variables that Python's huggingface_hub reads, so that both share one
 * cache and one login.
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { join, resolve } from "@std/path";
import { InputError } from "../base/errors.ts";

/** How the hub is reached. */
export interface HubSettings {
  /** Without a slash at its end. */
  readonly endpoint: string;
  /** The folder with `models--org--name` in it. */
  readonly cacheFolder: string;
  /** Whether nothing is asked of the hub. */
  readonly offline: boolean;
  /** Who asks; read anew each time, so that a login counts at once. */
  token(): Promise<string | undefined>;
}

/** The variables of an environment, as far as they may be looked at. */
export type Environment = (name: string) => string | undefined;

const PUBLIC_ENDPOINT = "https://huggingface.co";

/**
 * What the environment says.
 *
 * | variable                                           | what it sets                                          |
 * | -------------------------------------------------- | ----------------------------------------------------- |
 * | `HF_ENDPOINT`                                      | another server that speaks the hub's protocol         |
 * | `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`        | where models are kept (`~/.cache/huggingface/hub`)    |
 * | `HF_TOKEN`, `HF_TOKEN_PATH`, the file `token` in `HF_HOME` | who asks                                      |
 * | `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`           | 1: nothing is fetched                                 |
 *
 * @throws {InputError} an endpoint that is no address
 */
export function hubSettings(environment: Environment = ownEnvironment): HubSettings {
  const get = (name: string) => environment(name) || undefined;
  const path = (text: string) => resolve(expanded(text, get));
  const home = path(get("HF_HOME") ?? join(get("XDG_CACHE_HOME") ?? "~/.cache", "huggingface"));
  const cache = get("HF_HUB_CACHE") ?? get("HUGGINGFACE_HUB_CACHE");
  const tokenFile = get("HF_TOKEN_PATH");
  return {
    endpoint: checkedEndpoint(get("HF_ENDPOINT") ?? PUBLIC_ENDPOINT),
    cacheFolder: cache === undefined ? join(home, "hub") : path(cache),
    offline: isTrue(get("HF_HUB_OFFLINE") ?? get("TRANSFORMERS_OFFLINE")),
    token: async () =>
      get("HF_TOKEN")?.trim() || get("HUGGING_FACE_HUB_TOKEN")?.trim() ||
      await Deno.readTextFile(tokenFile === undefined ? join(home, "token") : path(tokenFile))
        .then((text) => text.trim() || undefined, () => undefined),
  };
}

/** One that may not be looked at is as good as not set; it is not asked for, because on a terminal that would stop and ask the user. */
function ownEnvironment(name: string): string | undefined {
  const { state } = Deno.permissions.querySync({ name: "env", variable: name });
  return state === "granted" ? Deno.env.get(name) : undefined;
}

/** Paths may begin with `~` and hold `$NAME`, as in Python. */
function expanded(path: string, get: Environment): string {
  const home = get("HOME") ?? get("USERPROFILE");
  return path
    .replace(/^~(?=$|[/\\])/, (tilde) => home ?? tilde)
    .replace(/\$(?:(\w+)|\{(\w+)\})/g, (whole, plain, braced) => get(plain ?? braced) ?? whole);
}

function checkedEndpoint(text: string): string {
  const url = URL.parse(text);
  if (url && /^https?:$/.test(url.protocol)) return text.replace(/\/+$/, "");
  throw new InputError(`must be an address such as ${PUBLIC_ENDPOINT}, not "${text}"`, {
    where: "HF_ENDPOINT",
  });
}

function isTrue(text: string | undefined): boolean {
  return ["1", "ON", "YES", "TRUE"].includes(text?.toUpperCase() ?? "");
}
