/** Downloads from the hub that are cut off, damaged, refused for a while, in each other's way, or too large for the disk. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
// @ts-types="../../types/std_path.d.ts"
import { join } from "@std/path";
import { DownloadFullError } from "../../src/hub/blob_download.ts";
import { fetchModel, type FetchOptions, isWhole } from "../../src/hub/fetch_model.ts";
import { parseHubName } from "../../src/hub/hub_name.ts";
import { HubError } from "../../src/hub/hub_requests.ts";
import { withSmallDisk } from "../runs/small_disk.ts";
import { cutOff, ranged, sha256 } from "./fake_hub.ts";
import { commonFiles, filesBelow, HASTE, noise, repository, withHub } from "./hub_cases.ts";

const fetch = (name: string, options: FetchOptions) =>
  fetchModel(parseHubName(name), { patience: HASTE, ...options });

Deno.test("a connection that is cut half-way is continued from there", async () => {
  const weights = noise(200_000);
  await withHub({ "ada/small": repository(commonFiles(weights)) }, async (hub, settings) => {
    let cuts = 0;
    hub.fault = (seen, bytes) => {
      const large = seen.path.startsWith("store:") && bytes!.length === weights.length;
      if (!large || cuts === 6) return undefined;
      cuts++;
      return cutOff(weights, 30_000, Number(/=(\d+)-/.exec(seen.range ?? "")?.[1] ?? 0));
    };
    // More cuts than tries: each brought something new.
    const path = await fetch("hf:ada/small", { settings });
    assertEquals(await Deno.readFile(join(path, "model.safetensors")), weights);
    const ranges = hub.seen.filter(({ path }) => path.includes(sha256(weights))).map(({ range }) => range);
    assertEquals(ranges, [null, 1, 2, 3, 4, 5, 6].map((i) => i && `bytes=${i * 30_000}-`));
  });
});

Deno.test("a download that was given up goes on where it stopped, once its bytes are looked at", async () => {
  const weights = noise(100_000);
  await withHub({ "ada/small": repository(commonFiles(weights)) }, async (hub, settings, folder) => {
    const isLarge = (path: string) => path === `store:/${sha256(weights)}?Signature=abc`;
    let cut = false;
    hub.fault = ({ path }) => {
      if (!isLarge(path)) return undefined;
      if (cut) return new Response(null, { status: 500 });
      cut = true;
      return cutOff(weights, 40_000);
    };
    const error = await assertRejects(() => fetch("hf:ada/small", { settings }), HubError);
    assertStringIncludes(error.message, "answers 500");
    const blobs = join(folder, "hub/models--ada--small/blobs");
    const partial = join(blobs, `${sha256(weights)}.incomplete`);
    assertEquals((await Deno.stat(partial)).size, 40_000);
    // Nothing has its final name yet, neither the blob nor a ref.
    assert(!(await filesBelow(folder)).some((file) => file.endsWith(`/${sha256(weights)}`)));
    assert(!(await filesBelow(folder)).some((file) => file.includes("/refs/")));

    hub.fault = undefined;
    hub.seen.length = 0;
    const path = await fetch("hf:ada/small", { settings });
    assertEquals(await Deno.readFile(join(path, "model.safetensors")), weights);
    assertEquals(hub.seen.filter(({ path }) => isLarge(path)).map(({ range }) => range), ["bytes=40000-"]);

    // What an earlier try left is not believed: with wrong bytes in it, all is fetched again.
    await Deno.remove(join(blobs, sha256(weights)));
    await Deno.writeFile(partial, noise(40_000, 99));
    hub.seen.length = 0;
    await fetch("hf:ada/small", { settings });
    assertEquals(await Deno.readFile(join(path, "model.safetensors")), weights);
    assertEquals(hub.seen.filter(({ path }) => isLarge(path)).map(({ range }) => range), [
      "bytes=40000-",
      null,
    ]);
  });
});

Deno.test("a server without ranges sends all again; one that sends too much or another file is caught", async () => {
  const weights = noise(60_000);
  await withHub({ "ada/small": repository(commonFiles(weights)) }, async (hub, settings, folder) => {
    let asked = 0;
    const onWeights = (answer: (range: string | null) => Response) => {
      hub.fault = ({ path, range }) => path.includes(sha256(weights)) ? answer(range) : undefined;
    };
    const whole = () => ranged({ headers: new Headers() }, weights, {});
    onWeights(() => asked++ === 0 ? cutOff(weights, 20_000) : whole());
    const path = await fetch("hf:ada/small", { settings });
    assertEquals(await Deno.readFile(join(path, "model.safetensors")), weights);

    // One that answers with another range than it was asked for is not believed either.
    asked = 0;
    onWeights((range) => {
      if (asked++ === 0) return cutOff(weights, 20_000);
      return range === null
        ? whole()
        : ranged({ headers: new Headers({ Range: "bytes=100-" }) }, weights, {});
    });
    const other = await fetch("hf:ada/small", {
      settings: { ...settings, cacheFolder: join(folder, "range") },
    });
    assertEquals(await Deno.readFile(join(other, "model.safetensors")), weights);

    const again = async (name: string) => {
      const cache = { ...settings, cacheFolder: join(folder, name) };
      const error = await assertRejects(() => fetch("hf:ada/small", { settings: cache }), HubError);
      const left = (await filesBelow(cache.cacheFolder)).filter((file) => file.includes(sha256(weights)));
      assert(left.every((file) => /\.(lock|incomplete)$/.test(file)), `${left}`);
      return error;
    };
    const damaged = weights.slice();
    damaged[59_999]! ^= 1;
    onWeights(() => ranged({ headers: new Headers() }, damaged, {}));
    assertStringIncludes((await again("damaged")).message, "is not what its hash");
    onWeights(() => ranged({ headers: new Headers() }, noise(70_000), {}));
    assertStringIncludes((await again("longer")).message, "more came as model.safetensors");
    onWeights(() => ranged({ headers: new Headers() }, noise(1000), {}));
    assertStringIncludes((await again("shorter")).message, "cut off after");
    // A small file has git's hash.
    hub.fault = ({ path }) =>
      path.includes("resolve-cache") && path.endsWith("/config.json")
        ? new Response('{"model_type": "gpt2"}.\n')
        : undefined;
    const small = await assertRejects(
      () => fetch("hf:ada/small", { settings: { ...settings, cacheFolder: join(folder, "small") } }),
      HubError,
    );
    assertStringIncludes(small.message, "config.json");
  });
});

Deno.test("a busy hub is asked again, but not for ever, and not before the time that it names", async () => {
  await withHub({ "ada/small": repository(commonFiles(noise(2000))) }, async (hub, settings) => {
    const busy = new Set<string>();
    hub.fault = ({ method, path }) => {
      if (busy.has(method + path)) return undefined;
      busy.add(method + path);
      return new Response(null, { status: busy.size % 2 ? 429 : 503 });
    };
    assert(await isWhole(await fetch("hf:ada/small", { settings })));

    hub.seen.length = 0;
    hub.fault = () => Response.json({ error: "We had to rate limit you" }, { status: 429 });
    const error = await assertRejects(() => fetch("hf:ada/small", { settings }), HubError);
    assertEquals(hub.seen.length, HASTE.tries);
    assertStringIncludes(error.message, "answers 429: We had to rate limit you");
    assertEquals(error.exitCode, 1);

    hub.seen.length = 0;
    hub.fault = () => new Response(null, { status: 429, headers: { "Retry-After": "3600" } });
    const long = await assertRejects(() => fetch("hf:ada/small", { settings }), HubError);
    assertEquals(hub.seen.length, 1);
    assertStringIncludes(long.hint!, "patience of 3600 s");
  });
});

Deno.test("a silent server is given up, and a fetch can be stopped", async () => {
  const weights = noise(50_000);
  await withHub({ "ada/small": repository(commonFiles(weights)) }, async (hub, settings) => {
    const hang = () =>
      new Response(
        new ReadableStream({
          start: (controller) => controller.enqueue(weights.slice(0, 1000)),
        }),
      );
    hub.fault = ({ path }) =>
      path.startsWith("store:") && path.includes(sha256(weights)) ? hang() : undefined;
    const patience = { ...HASTE, tries: 1, silence: 100 };
    const error = await assertRejects(() => fetch("hf:ada/small", { settings, patience }), HubError);
    assertStringIncludes(error.message, "nothing came for 0.1 s");
    const stop = new AbortController();
    const stopped = assertRejects(
      () => fetch("hf:ada/small", { settings, signal: stop.signal }),
      Error,
      "enough",
    );
    setTimeout(() => stop.abort(new Error("enough")), 100);
    await stopped;
  });
});

Deno.test("several at once fetch each file once", async () => {
  const weights = noise(80_000);
  await withHub({ "ada/small": repository(commonFiles(weights)) }, async (hub, settings, folder) => {
    hub.fault = async ({ path }) => {
      if (path.startsWith("store:")) await new Promise((resolve) => setTimeout(resolve, 100));
      return undefined as unknown as Response;
    };
    const notes: string[] = [];
    const paths = await Promise.all(
      [1, 2, 3].map(() => fetch("hf:ada/small", { settings, onNote: (note) => notes.push(note) })),
    );
    assertEquals(new Set(paths).size, 1);
    assertEquals(hub.downloads.length, new Set(hub.downloads).size);
    assert(notes.some((note) => note.includes("another process fetches")));
    const left = (await filesBelow(folder)).filter((file) => file.includes("incomplete"));
    assertEquals(left, []);
  });
});

Deno.test("a full disk is seen before anything is fetched, and where it fills up meanwhile the rest comes later", () =>
  withSmallDisk((disk) =>
    withHub({ "ada/large": repository(commonFiles(noise(2_000_000))) }, async (hub, settings) => {
      const small = { ...settings, cacheFolder: `${disk}/runs/hub` };
      const before = await assertRejects(() => fetch("hf:ada/large", { settings: small }), DownloadFullError);
      assertEquals(before.code, "disk_full");
      assertStringIncludes(before.message, "hf:ada/large: disk full: ");
      assertStringIncludes(before.hint!, "HF_HOME");
      assertEquals(hub.downloads, []);
      assertEquals(await filesBelow(small.cacheFolder), []);

      const weights = noise(600_000);
      hub.repositories.set("ada/small", repository(commonFiles(weights)));
      const filler = `${disk}/runs/filler`;
      hub.fault = async ({ path }) => {
        if (path.includes(sha256(weights))) await Deno.writeFile(filler, noise(700_000));
        return undefined as unknown as Response;
      };
      const full = await assertRejects(() => fetch("hf:ada/small", { settings: small }), DownloadFullError);
      assertStringIncludes(full.message, "of the 600000 bytes of model.safetensors are in");
      const names = await filesBelow(small.cacheFolder);
      assert(names.some((name) => name.endsWith(`${sha256(weights)}.incomplete`)));
      assert(!names.some((name) => name.endsWith(`/${sha256(weights)}`)));
      await Deno.remove(filler);
      hub.fault = undefined;
      hub.seen.length = 0;
      const path = await fetch("hf:ada/small", { settings: small });
      assertEquals(await Deno.readFile(join(path, "model.safetensors")), weights);
      const [asked] = hub.seen.filter(({ path }) => path.includes(sha256(weights)));
      assert(Number(/=(\d+)-/.exec(asked!.range!)![1]) > 100_000);
    })
  ));
