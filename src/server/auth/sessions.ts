/**
 * Sessions of the page: a browser exchanges its token for a cookie that scripts cannot read, because an EventSource cannot send a header.
 *
 * @module
 */
import { randomBytes } from "node:crypto";
import type { Identity } from "./tokens.ts";
import { hashOf } from "./tokens.ts";

/** Name of the cookie. */
export const SESSION_COOKIE = "limbeck_session";
/** How long a session lasts, seconds. */
export const SESSION_SECONDS = 12 * 3600;
/** One's oldest session ends when one has more, so that nobody can end those of others. */
const MOST_SESSIONS_EACH = 100;

/**
 * Sessions, in memory: they end with the service. Only hashes of their ids are kept.
 *
 * @example
 * ```ts ignore
 * const sessions = new Sessions();
 * const cookie = sessions.begin({ name: "ada", scope: "submit" });
 * sessions.identify(cookie)?.name; // "ada"
 * ```
 */
export class Sessions {
  readonly #sessions = new Map<string, { identity: Identity; ends: number }>();
  readonly #now: () => number;

  /** @param now the time in milliseconds */
  constructor(now: () => number = Date.now) {
    this.#now = now;
  }

  /** Begins a session; returns what its cookie holds. */
  begin(identity: Identity): string {
    const id = randomBytes(24).toString("base64url");
    this.#makeRoom(identity.name);
    this.#sessions.set(keyOf(id), { identity, ends: this.#now() + SESSION_SECONDS * 1000 });
    return id;
  }

  /** Forgets sessions that have ended, and the oldest of a name that has too many. */
  #makeRoom(name: string): void {
    const now = this.#now();
    const own: string[] = [];
    for (const [key, { identity, ends }] of this.#sessions) {
      if (ends <= now) this.#sessions.delete(key);
      else if (identity.name === name) own.push(key);
    }
    if (own.length >= MOST_SESSIONS_EACH) this.#sessions.delete(own[0]!);
  }

  /** Whose session this is, if it has not ended. */
  identify(id: string): Identity | undefined {
    const key = keyOf(id);
    const session = this.#sessions.get(key);
    if (session && session.ends > this.#now()) return session.identity;
    this.#sessions.delete(key);
    return undefined;
  }

  end(id: string): void {
    this.#sessions.delete(keyOf(id));
  }
}

/** Looked up by hash: the time that takes tells nothing of the ids there are. */
function keyOf(id: string): string {
  return hashOf(id).toString("hex");
}
