/** A registry of npm packages on this machine, for plugins that come as packages. */
import { createHash } from "node:crypto";

/** A package: its version, and its files by name. */
export interface NpmPackage {
  readonly name: string;
  readonly version: string;
  readonly files: Readonly<Record<string, string>>;
}

/** Serves packages; `url` is what goes into an `.npmrc`. */
export interface NpmRegistry extends AsyncDisposable {
  readonly url: string;
}

/** Starts a registry that has one package. */
export async function serveNpm(given: NpmPackage): Promise<NpmRegistry> {
  const tarball = await gzip(tar(given.files));
  const integrity = `sha512-${createHash("sha512").update(tarball).digest("base64")}`;
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, (request) => {
    const { pathname, origin } = new URL(request.url);
    const path = decodeURIComponent(pathname);
    if (path.endsWith(".tgz")) return new Response(tarball);
    if (path !== `/${given.name}`) return new Response("not here", { status: 404 });
    const { name, version } = given;
    const manifest = JSON.parse(given.files["package.json"]!);
    const dist = { tarball: `${origin}/${name}-${version}.tgz`, integrity };
    return Response.json({
      name,
      "dist-tags": { latest: version },
      versions: { [version]: { ...manifest, dist } },
    });
  });
  return { url: `http://127.0.0.1:${server.addr.port}/`, [Symbol.asyncDispose]: () => server.shutdown() };
}

async function gzip(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const BLOCK = 512;

/** A ustar archive of files in `package/`. */
function tar(files: Readonly<Record<string, string>>): Uint8Array<ArrayBuffer> {
  const blocks: Uint8Array[] = [];
  for (const [name, text] of Object.entries(files)) {
    const data = new TextEncoder().encode(text);
    const header = new Uint8Array(BLOCK);
    const put = (at: number, value: string) => header.set(new TextEncoder().encode(value), at);
    put(0, `package/${name}`);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, data.length.toString(8).padStart(11, "0") + "\0");
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0ustar\0");
    put(263, "00");
    // The sum is that of a header whose own place for it holds blanks.
    put(148, header.reduce((sum, byte) => sum + byte, 0).toString(8).padStart(6, "0") + "\0 ");
    const padded = new Uint8Array(Math.ceil(data.length / BLOCK) * BLOCK);
    padded.set(data);
    blocks.push(header, padded);
  }
  blocks.push(new Uint8Array(2 * BLOCK));
  const archive = new Uint8Array(blocks.reduce((sum, block) => sum + block.length, 0));
  let at = 0;
  for (const block of blocks) {
    archive.set(block, at);
    at += block.length;
  }
  return archive;
}
