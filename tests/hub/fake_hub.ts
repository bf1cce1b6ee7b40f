/**
 * A small server that speaks the hub's protocol, as far as models and datasets (`datasets/org/name`) are fetched by it: the commit of a revision, the tree of a commit in
 * pages, files that are redirected (large ones to another server, with a signature), ranges, hashes in headers, and the refusals with
 * their codes. What goes wrong is said by the test.
 */
import { createHash } from "node:crypto";

/** A repository at one commit or several. */
export interface FakeRepository {
  /** Files by path, of each commit. */
  readonly commits: Readonly<Record<string, Readonly<Record<string, Uint8Array>>>>;
  /** Commits by branch or tag. */
  readonly revisions: Readonly<Record<string, string>>;
  /** Tokens that may read its files; all may when absent. Its name and files are public all the same. */
  readonly gatedFor?: readonly string[];
  /** Tokens for whom it exists. */
  readonly privateTo?: readonly string[];
}

/** A request that reached the hub or its store of large files. */
export interface Seen {
  readonly method: string;
  /** Path and query; those of the other server begin with `store:`. */
  readonly path: string;
  readonly range: string | null;
  readonly authorization: string | null;
}

/** What a test does to answers: another one, or undefined for the usual. */
export type Fault = (seen: Seen, file: Uint8Array | undefined) => Response | Promise<Response> | undefined;

/** Files above this size are large: kept elsewhere, and named by their sha256. */
const LARGE = 1000;
const TREE_PAGE = 3;

/** A running hub. */
export class FakeHub implements AsyncDisposable {
  readonly seen: Seen[] = [];
  readonly repositories = new Map<string, FakeRepository>();
  fault: Fault | undefined;
  readonly #hub: Deno.HttpServer<Deno.NetAddr>;
  readonly #store: Deno.HttpServer<Deno.NetAddr>;

  constructor(repositories: Readonly<Record<string, FakeRepository>> = {}) {
    for (const [name, repository] of Object.entries(repositories)) this.repositories.set(name, repository);
    const options = { port: 0, hostname: "127.0.0.1", onListen() {} };
    this.#hub = Deno.serve(options, (request) => this.#answer(request));
    this.#store = Deno.serve(options, (request) => this.#fromStore(request));
  }

  get url(): string {
    return `http://127.0.0.1:${this.#hub.addr.port}`;
  }

  /** How often files were asked for, ranges of them too. */
  get downloads(): string[] {
    return this.seen.filter(({ method, path }) => method === "GET" && /^store:|resolve-cache/.test(path))
      .map(({ path }) => path);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.#hub.shutdown(), this.#store.shutdown()]);
  }

  #see(request: Request, prefix = ""): Seen {
    const { pathname, search } = new URL(request.url);
    const seen = {
      method: request.method,
      path: prefix + decodeURIComponent(pathname) + search,
      range: request.headers.get("Range"),
      authorization: request.headers.get("Authorization"),
    };
    this.seen.push(seen);
    return seen;
  }

  async #answer(request: Request): Promise<Response> {
    const seen = this.#see(request);
    const { pathname, searchParams } = new URL(request.url);
    const path = decodeURIComponent(pathname);
    const api = /^\/api\/(?:models\/)?(.+?)\/(revision|tree)\/([^?]+)$/.exec(path);
    const cached = /^\/api\/resolve-cache\/(?:models\/)?(.+?)\/([0-9a-f]{40})\/(.+)$/.exec(path);
    const file = /^\/(.+?)\/resolve\/([^/]+)\/(.+)$/.exec(path);
    const name = (cached ?? api ?? file)?.[1];
    const repository = this.repositories.get(name ?? "");
    const token = seen.authorization?.replace("Bearer ", "");
    const isHidden = repository?.privateTo && !repository.privateTo.includes(token ?? "");
    const found = repository && !isHidden
      ? this.#find(repository, api ?? file ?? cached, api?.[2])
      : undefined;
    const faulty = await this.fault?.(seen, found?.bytes);
    if (faulty) return faulty;
    if (!repository || isHidden) {
      return token === undefined
        ? refused(401, "RepoNotFound", "Invalid username or password.")
        : refused(404, "RepoNotFound", "Repository not found");
    }
    if (!found?.commit) {
      const asked = (api ?? file)?.[api ? 3 : 2];
      return refused(404, "RevisionNotFound", `Invalid rev id: ${asked}`);
    }
    if (api?.[2] === "revision") {
      return Response.json({
        _id: "1",
        id: name,
        sha: found.commit,
        private: false,
        lastModified: "2026-01-01T00:00:00.000Z",
        siblings: Object.keys(repository.commits[found.commit]!).map((rfilename) => ({ rfilename })),
      });
    }
    if (api) return this.#tree(repository, found.commit, pathname, Number(searchParams.get("cursor") ?? 0));
    const headers = { "X-Repo-Commit": found.commit };
    if (!found.bytes) return refused(404, "EntryNotFound", "Entry not found", headers);
    if (repository.gatedFor && !repository.gatedFor.includes(token ?? "")) {
      return refused(
        token === undefined ? 401 : 403,
        "GatedRepo",
        `Access to model ${name} is restricted. You must have access to it and be authenticated to access it.`,
        headers,
      );
    }
    if (cached) return ranged(request, found.bytes, { ...headers, ETag: `"${gitHash(found.bytes)}"` });
    const where = found.path!.split("/").map(encodeURIComponent).join("/");
    if (found.bytes.length <= LARGE) {
      return new Response(null, {
        status: 307,
        headers: {
          ...headers,
          Location: `/api/resolve-cache/${
            name!.startsWith("datasets/") ? "" : "models/"
          }${name}/${found.commit}/${where}`,
          "X-Linked-Size": String(found.bytes.length),
          ETag: `"${gitHash(found.bytes)}"`,
        },
      });
    }
    const hash = sha256(found.bytes);
    return new Response(null, {
      status: 302,
      headers: {
        ...headers,
        Location: `http://127.0.0.1:${this.#store.addr.port}/${hash}?Signature=abc`,
        "X-Linked-Size": String(found.bytes.length),
        "X-Linked-ETag": `"${hash}"`,
      },
    });
  }

  #find(
    { commits, revisions }: FakeRepository,
    match: RegExpExecArray | null,
    api: string | undefined,
  ): { commit?: string; path?: string; bytes?: Uint8Array } {
    const revision = match![api ? 3 : 2]!;
    const commit = Object.hasOwn(commits, revision) ? revision : revisions[revision];
    if (commit === undefined || api) return commit === undefined ? {} : { commit };
    const path = match![3]!;
    const bytes = commits[commit]![path];
    return { commit, path, ...(bytes ? { bytes } : {}) };
  }

  #tree({ commits }: FakeRepository, commit: string, pathname: string, from: number): Response {
    const entries = Object.entries(commits[commit]!);
    const folders = new Set(entries.flatMap(([path]) => path.includes("/") ? [path.split("/")[0]!] : []));
    const all = [
      ...[...folders].map((path) => ({ type: "directory", oid: "0".repeat(40), size: 0, path })),
      ...entries.map(([path, bytes]) => ({
        ...{ type: "file", oid: gitHash(bytes), size: bytes.length, path },
        ...(bytes.length > LARGE
          ? { lfs: { oid: sha256(bytes), size: bytes.length, pointerSize: 130 } }
          : {}),
      })),
    ];
    const next = from + TREE_PAGE;
    const link = `<${this.url}${pathname}?recursive=true&expand=false&cursor=${next}>; rel="next"`;
    return Response.json(all.slice(from, next), { headers: next < all.length ? { Link: link } : {} });
  }

  async #fromStore(request: Request): Promise<Response> {
    const seen = this.#see(request, "store:");
    const hash = new URL(request.url).pathname.slice(1);
    const bytes = [...this.repositories.values()]
      .flatMap(({ commits }) => Object.values(commits).flatMap((files) => Object.values(files)))
      .find((bytes) => sha256(bytes) === hash);
    const faulty = await this.fault?.(seen, bytes);
    if (faulty) return faulty;
    return bytes ? ranged(request, bytes, {}) : new Response("no such object", { status: 404 });
  }
}

/** The answer to a request for a file or a range of it. */
export function ranged(request: Pick<Request, "headers">, bytes: Uint8Array, headers: HeadersInit): Response {
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.get("Range") ?? "");
  const body = new Uint8Array(bytes);
  if (!range) return new Response(body, { headers: { ...headers, "Content-Length": String(bytes.length) } });
  const first = Number(range[1]);
  if (first >= bytes.length) return new Response(null, { status: 416 });
  const last = range[2] === "" ? bytes.length - 1 : Math.min(Number(range[2]), bytes.length - 1);
  return new Response(body.slice(first, last + 1), {
    status: 206,
    headers: { ...headers, "Content-Range": `bytes ${first}-${last}/${bytes.length}` },
  });
}

/** An answer that breaks off: as many bytes as it says, but the connection is closed after `sent`. */
export function cutOff(bytes: Uint8Array, sent: number, from = 0): Response {
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      controller.enqueue(bytes.slice(from, from + sent));
    },
    async pull(controller) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      // Fewer bytes than were announced.
      controller.close();
    },
  });
  return new Response(body, {
    status: from > 0 ? 206 : 200,
    headers: {
      "Content-Length": String(bytes.length - from),
      ...(from > 0 ? { "Content-Range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` } : {}),
    },
  });
}

function refused(status: number, code: string, message: string, headers: HeadersInit = {}): Response {
  return Response.json({ error: message }, {
    status,
    headers: { ...headers, "X-Error-Code": code, "X-Error-Message": message },
  });
}

/** Lower-case hexadecimal. */
export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** What git calls a file's content. */
export function gitHash(bytes: Uint8Array): string {
  return createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
}
