/**
 * A model behind a server that speaks the OpenAI API: where it is, who asks, and how much may be asked.
 *
 * @module
 */
import { system } from "../base/system.ts";
import { InputError, LimbeckError } from "../base/errors.ts";

/** How a server is reached. */
export interface ServerSettings {
  /** What its paths begin with, as a rule ending in `/v1`. */
  readonly url: string;
  /** What it calls the model. */
  readonly model: string;
  /** The environment variable that holds the key; none is sent when absent. */
  readonly keyVariable?: string;
  /** Requests that are under way at once. */
  readonly concurrency: number;
  readonly requestsPerMinute?: number;
  /** Of prompts and answers together. */
  readonly tokensPerMinute?: number;
  /** Seconds within which an answer must be there. */
  readonly timeoutSeconds: number;
  /** Allows http, which anyone between here and there can read, to another machine than this one. */
  readonly allowHttp?: boolean;
  readonly budget?: BudgetLimits;
}

/** What may be used in all. */
export interface BudgetLimits {
  readonly requests?: number;
  /** Of prompts and answers together. */
  readonly tokens?: number;
}

/** The server cannot be reached, or does not do what it should. */
export class ServedError extends LimbeckError {
  override readonly code: string = "served";
}

/** The server refuses what is asked of it, or answers with something else. */
export class ServedRefusal extends InputError {
  override readonly code: string = "served_refusal";
  /** With which it refuses a request; undefined where it answers. */
  readonly status: number | undefined;

  constructor(
    message: string,
    options: { where?: string; hint?: string; cause?: unknown; status?: number } = {},
  ) {
    super(message, options);
    this.status = options.status;
  }
}

const LOOPBACK = /^(localhost|127(\.\d+){3}|\[::1\])$/;

/**
 * What is wrong with a server's address; undefined where nothing is.
 *
 * A key or a text must not be read on the way: so it is https, but to this machine itself, or where the user says so.
 */
export function urlProblem(text: string, allowHttp = false): string | undefined {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    return "is no address, such as https://host/v1";
  }
  if (url.protocol !== "https:" && url.protocol !== "http:") return "must begin with https:// or http://";
  if (url.username !== "" || url.password !== "") {
    return "must not hold a password: name the environment variable with the key in keyVariable";
  }
  if (url.search !== "" || url.hash !== "") return "must have no ? and no #";
  if (url.protocol === "http:" && !LOOPBACK.test(url.hostname) && !allowHttp) {
    return `would send texts and keys to ${url.hostname} in the clear: use https, or allow it with allowHttp: true`;
  }
  return undefined;
}

/** The address of a path of the server. */
export function addressOf({ url }: Pick<ServerSettings, "url">, path: string): string {
  return `${url.replace(/\/+$/, "")}/${path}`;
}

/** The variables of an environment, as far as they may be looked at. */
export type Environment = (name: string) => string | undefined;

/** This process's own. One that may not be looked at is not asked for: on a terminal that would stop and ask the user. */
export function ownEnvironment(name: string): string | undefined {
  if (system.permissions.querySync({ name: "env", variable: name }).state !== "granted") {
    throw new ServedRefusal("may not be read by this process", {
      where: name,
      hint: "Name a variable that begins with LIMBECK_KEY, or OPENAI_API_KEY; or run it with --allow-env.",
    });
  }
  return system.env.get(name);
}

/**
 * The key, if the server wants one. It goes into one header and nowhere else.
 *
 * @throws {ServedRefusal} the variable is not set, or may not be read
 */
export function keyOf(
  { keyVariable }: Pick<ServerSettings, "keyVariable">,
  environment: Environment = ownEnvironment,
): string | undefined {
  if (keyVariable === undefined) return undefined;
  const key = environment(keyVariable)?.trim();
  if (key) return key;
  throw new ServedRefusal("is not set, and the recipe says that it holds the server's key", {
    where: keyVariable,
    hint:
      `Set it where this command runs, or leave teacher.server.keyVariable out for a server without keys.`,
  });
}
