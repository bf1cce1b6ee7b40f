/**
 * A service on a port of this machine, from its start to its orderly end.
 *
 * @module
 */
import { InputError, LimbeckError } from "../base/errors.ts";
import { createApp } from "./app.ts";
import type { Service } from "./service.ts";
import type { TokenList } from "./auth/tokens.ts";

/** Where to listen. */
export interface Address {
  readonly host: string;
  /** 0 takes any that is free. */
  readonly port: number;
}

/** A service that listens. */
export interface Listening {
  readonly host: string;
  readonly port: number;
  /**
   * Ends it: takes no more connections, ends the streams, lets the current run save, and closes the store.
   *
   * @param seconds after which the run's process is killed
   */
  close(seconds?: number): Promise<void>;
}

/**
 * Refuses an address that others can reach, where no token keeps them out.
 *
 * @param publicHosts names under which a proxy hands requests on
 * @throws {InputError} such an address or name
 */
export function checkBinding(host: string, tokens: TokenList, publicHosts: readonly string[] = []): void {
  if (!tokens.isEmpty) return;
  if (publicHosts.length > 0) {
    throw new InputError(
      `others reach the service as ${publicHosts[0]}, and there is no token to keep anyone out`,
      { hint: "`limbeck token NAME >> tokens` makes one; then start with --tokens tokens." },
    );
  }
  if (isLoopback(host)) return;
  throw new InputError(
    `${host} can be reached from other machines, and there is no token to keep anyone out`,
    {
      hint:
        "`limbeck token NAME >> tokens` makes one; then start with --tokens tokens. Or listen on 127.0.0.1.",
    },
  );
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(?:\.\d{1,3}){3}$/.test(host);
}

/**
 * Begins to listen.
 *
 * @throws {InputError} the address is in use or cannot be had, or needs a token
 */
export function listen(service: Service, { host, port }: Address): Listening {
  checkBinding(host, service.tokens);
  const app = createApp(service);
  let server: Deno.HttpServer<Deno.NetAddr>;
  try {
    server = Deno.serve({ hostname: host, port, onListen() {} }, app.fetch);
  } catch (error) {
    throw unavailable(error, { host, port });
  }
  const { hostname, port: got } = server.addr;
  return {
    host: hostname,
    port: got,
    async close(seconds) {
      // No more connections first: a reader that comes back while the run still saves must find nobody and try again, because an
      // EventSource that is answered with an error gives up. Then the streams, which never end by themselves.
      const stopped = server.shutdown();
      service.streams.close();
      const closed = service.close(seconds);
      await Promise.race([stopped, closed.then(() => wait(2000))]);
      await closed;
    },
  };
}

function wait(milliseconds: number): Promise<void> {
  return new Promise((resolve) => Deno.unrefTimer(setTimeout(resolve, milliseconds)));
}

function unavailable(error: unknown, { host, port }: Address): LimbeckError {
  const where = `${host}:${port}`;
  if (error instanceof Deno.errors.AddrInUse) {
    return new InputError("another program listens there", {
      where,
      hint: "End it, or choose another --port.",
      cause: error,
    });
  }
  return new InputError(`cannot be listened on: ${(error as Error).message}`, {
    where,
    hint: "--host must be an address of this machine; ports below 1024 need special rights.",
    cause: error,
  });
}
