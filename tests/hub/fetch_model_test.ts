/** Models of the hub, fetched from a small server that speaks its protocol. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
// @ts-types="../../types/std_path.d.ts"
import { join } from "@std/path";
import { InputError } from "../../src/base/errors.ts";
import { fetchModel, type FetchOptions, type FetchProgress, isWhole } from "../../src/hub/fetch_model.ts";
import { hubRecord } from "../../src/hub/hub_cache.ts";
import { parseHubName } from "../../src/hub/hub_name.ts";
import { HubError, HubRefusal, HubUnreachableError } from "../../src/hub/hub_requests.ts";
import { gitHash, sha256 } from "./fake_hub.ts";
import {
  commonFiles,
  filesBelow,
  FIRST,
  HASTE,
  noise,
  repository,
  SECOND,
  settingsOf,
  text,
  withHub,
} from "./hub_cases.ts";

const fetch = (name: string, options: FetchOptions) =>
  fetchModel(parseHubName(name), { patience: HASTE, ...options });

Deno.test("a model is fetched into Python's layout: only the files needed, and not again", async () => {
  const files = commonFiles();
  await withHub({ "ada/small": repository(files) }, async (hub, settings, folder) => {
    const seen: FetchProgress[] = [];
    const path = await fetch("hf:ada/small", { settings, onProgress: (progress) => seen.push(progress) });
    assertEquals(path, join(folder, "hub/models--ada--small/snapshots", FIRST));
    const names = [
      "config.json",
      "generation_config.json",
      "model.safetensors",
      "tokenizer.json",
      "tokenizer_config.json",
    ];
    const hashOf = (name: string) =>
      files[name]!.length > 1000 ? sha256(files[name]!) : gitHash(files[name]!);
    const hashes = [...new Set(names.map(hashOf))];
    assertEquals(
      (await filesBelow(join(folder, "hub"))).filter((file) => !file.startsWith(".locks/")),
      [
        ...hashes.map((hash) => `models--ada--small/blobs/${hash}`),
        "models--ada--small/refs/main",
        ...names.map((name) =>
          `models--ada--small/snapshots/${FIRST}/${name} -> ../../blobs/${hashOf(name)}`
        ),
      ].sort(),
    );
    assertEquals(await Deno.readTextFile(join(folder, "hub/models--ada--small/refs/main")), FIRST);
    for (const name of names) assertEquals(await Deno.readFile(join(path, name)), files[name]);
    const total = names.reduce((sum, name) => sum + files[name]!.length, 0);
    assertEquals(seen.at(-1), {
      name: "hf:ada/small",
      file: "model.safetensors",
      bytes: total,
      bytesTotal: total,
    });
    assertEquals(await hubRecord(path), {
      repository: "ada/small",
      commit: FIRST,
      files: Object.fromEntries(names.map((name) => [name, hashOf(name)])),
    });

    const downloads = hub.downloads.length;
    assertEquals(downloads, hashes.length);
    assertEquals(await fetch("hf:ada/small", { settings }), path);
    assertEquals(hub.downloads.length, downloads);
  });
});

Deno.test("weights in several files come with those that their index names", async () => {
  const index = { metadata: {}, weight_map: { a: "part-1.safetensors", b: "part-2.safetensors" } };
  const files = {
    "config.json": text("{}"),
    "model.safetensors.index.json": text(JSON.stringify(index)),
    "part-1.safetensors": noise(5000, 1),
    "part-2.safetensors": noise(6000, 2),
    "part-3.safetensors": noise(7000, 3),
  };
  await withHub({ "ada/large": repository(files) }, async (hub, settings) => {
    const path = await fetch("hf:ada/large", { settings });
    const names = (await filesBelow(path)).map((file) => file.split(" ")[0]);
    assertEquals(names, [
      "config.json",
      "model.safetensors.index.json",
      "part-1.safetensors",
      "part-2.safetensors",
    ]);
    assert(await isWhole(path));
    await Deno.remove(join(path, "part-2.safetensors"));
    assert(!await isWhole(path));
    // Its blob is there: it only gets its name back.
    const downloads = hub.downloads.length;
    await fetch("hf:ada/large", { settings });
    assertEquals(hub.downloads.length, downloads);
    assert(await isWhole(path));

    const { "part-2.safetensors": _, ...rest } = files;
    hub.repositories.set("ada/part", repository(rest));
    const error = await assertRejects(() => fetch("hf:ada/part", { settings }), InputError);
    assertStringIncludes(error.message, "hf:ada/part: the repository has no part-2.safetensors");
  });
});

Deno.test("a branch is asked for anew, a tag, a pull request and a commit are what they are", async () => {
  const repo = {
    commits: { [FIRST]: commonFiles(noise(2000, 1)), [SECOND]: commonFiles(noise(2000, 2)) },
    revisions: { main: FIRST, "v1.0": FIRST, "refs/pr/2": SECOND },
  };
  await withHub({ "ada/small": repo }, async (hub, settings, folder) => {
    const at = (path: string) => path.split("/").at(-1);
    assertEquals(at(await fetch("hf:ada/small@v1.0", { settings })), FIRST);
    assertEquals(at(await fetch("hf:ada/small@refs/pr/2", { settings })), SECOND);
    assertEquals(at(await fetch(`hf:ada/small@${FIRST}`, { settings })), FIRST);
    assertEquals(at(await fetch("hf:ada/small", { settings })), FIRST);
    hub.repositories.set("ada/small", { ...repo, revisions: { main: SECOND } });
    const downloads = hub.downloads.length;
    assertEquals(at(await fetch("hf:ada/small", { settings })), SECOND);
    assertEquals(hub.downloads.length, downloads);
    const refs = (await filesBelow(join(folder, "hub"))).filter((file) => file.includes("/refs/"));
    assertEquals(refs.map((file) => file.split("/refs/")[1]), ["main", "refs/pr/2", "v1.0"]);
  });
});

Deno.test("a GGUF file is fetched alone, named or as the only one", async () => {
  const files = { "README.md": text("#"), "a-Q4_0.gguf": noise(3000, 1), "a-Q8_0.gguf": noise(4000, 2) };
  await withHub({ "ada/gguf": repository(files) }, async (hub, settings) => {
    const path = await fetch("hf:ada/gguf/a-Q8_0.gguf@main", { settings });
    assertEquals(path.split("/").slice(-2), [FIRST, "a-Q8_0.gguf"]);
    assertEquals(await Deno.readFile(path), files["a-Q8_0.gguf"]);
    assertEquals(hub.downloads.length, 1);
    assertEquals((await hubRecord(path))!.files, { "a-Q8_0.gguf": sha256(files["a-Q8_0.gguf"]) });

    const several = await assertRejects(() => fetch("hf:ada/gguf@main", { settings }), InputError);
    assertStringIncludes(several.message, "2 GGUF files");
    assertStringIncludes(several.hint!, "hf:ada/gguf/a-Q4_0.gguf, hf:ada/gguf/a-Q8_0.gguf");
    const wrong = await assertRejects(() => fetch("hf:ada/gguf/b.gguf", { settings }), InputError);
    assertStringIncludes(wrong.message, "no file b.gguf");
    hub.repositories.set("ada/one", repository({ "only.gguf": files["a-Q4_0.gguf"] }));
    const only = await fetch("hf:ada/one", { settings });
    assertEquals(only.split("/").at(-1), "only.gguf");
    assertEquals(await fetch("hf:ada/one", { settings: { ...settings, offline: true } }), only);
  });
});

Deno.test("a folder of a repository, and one without safetensors", async () => {
  const folder = commonFiles(noise(2000));
  const files = Object.fromEntries(Object.entries(folder).map(([name, bytes]) => [`step-5/${name}`, bytes]));
  const { "model.safetensors": _, ...pickled } = folder;
  const all = { "ada/steps": repository(files), "ada/old": repository(pickled) };
  await withHub(all, async (_, settings, cache) => {
    const path = await fetch("hf:ada/steps/step-5", { settings });
    assertEquals(path.split("/").slice(-2), [FIRST, "step-5"]);
    assertEquals(await Deno.readFile(join(path, "config.json")), folder["config.json"]);
    assertEquals(Object.keys((await hubRecord(path))!.files).length, 5);
    const missing = await assertRejects(() => fetch("hf:ada/steps/step-6", { settings }), InputError);
    assertStringIncludes(missing.message, "no such folder");
    const old = await assertRejects(() => fetch("hf:ada/old", { settings }), InputError);
    assertStringIncludes(old.message, "no weights in safetensors");
    assertStringIncludes(old.hint!, "pickled");
    assert(!(await filesBelow(join(cache, "hub"))).some((file) => file.includes("ada--old")));
  });
});

Deno.test("the hub's refusals are told in its own words, and leave nothing in the cache", async () => {
  const files = commonFiles(noise(2000));
  const all = {
    "ada/gated": { ...repository(files), gatedFor: ["hf_friend"] },
    "ada/secret": { ...repository(files), privateTo: ["hf_ada"] },
    "ada/small": repository(files),
  };
  await withHub(all, async (hub, settings, folder) => {
    const refused = async (name: string, token?: string) => {
      const error = await assertRejects(
        () => fetch(name, { settings: { ...settings, token: () => Promise.resolve(token) } }),
        HubRefusal,
      );
      assertEquals(error.exitCode, 3);
      return error;
    };
    const host = new URL(hub.url).host;
    const misspelt = await refused("hf:ada/smal");
    assertEquals(misspelt.message, `hf:ada/smal: ${host} answers 401: Invalid username or password.`);
    assertStringIncludes(misspelt.hint!, "Check the name");
    assertStringIncludes((await refused("hf:ada/smal", "hf_x")).message, "404: Repository not found");
    assertStringIncludes((await refused("hf:ada/secret", "hf_x")).message, "404: Repository not found");
    const revision = await refused("hf:ada/small@v9");
    assertStringIncludes(revision.message, "404: Invalid rev id: v9");
    assertStringIncludes(revision.hint!, "no such branch");
    const anonymous = await refused("hf:ada/gated");
    assertStringIncludes(anonymous.message, "401: Access to model ada/gated is restricted");
    assertStringIncludes(anonymous.hint!, "HF_TOKEN");
    const stranger = await refused("hf:ada/gated", "hf_stranger");
    assertStringIncludes(stranger.message, "403: Access to model");
    assertStringIncludes(stranger.hint!, "with the account that the token is of");
    assert(!`${stranger.message}${stranger.hint}`.includes("hf_stranger"));
    assertEquals(await filesBelow(folder), []);
    await assertRejects(() => Deno.stat(join(folder, "hub")), Deno.errors.NotFound);

    hub.fault = ({ authorization }) =>
      authorization === "Bearer hf_old"
        ? Response.json({ error: "Invalid credentials in Authorization header" }, { status: 401 })
        : undefined;
    assertStringIncludes((await refused("hf:ada/small", "hf_old")).hint!, "The token is not valid");
    hub.fault = undefined;

    const friend = { ...settings, token: () => Promise.resolve("hf_friend") };
    assert(await isWhole(await fetch("hf:ada/gated", { settings: friend })));
    // The token is the hub's alone; the other server has a signature.
    const store = hub.seen.filter(({ path }) => path.startsWith("store:"));
    assert(store.length > 0 && store.every(({ authorization }) => authorization === null));
    const asked = hub.seen.filter(({ authorization }) => authorization === "Bearer hf_friend");
    assert(asked.length > 3);
  });
});

Deno.test("what a server says cannot move the cursor of a terminal, and is no page", async () => {
  await withHub({}, async (hub, settings) => {
    hub.fault = () => new Response("\u001b[2Jgone\u0007", { status: 410 });
    const error = await assertRejects(() => fetch("hf:ada/small", { settings }), HubRefusal);
    assertStringIncludes(error.message, "410: [2Jgone");
    hub.fault = () => new Response("<html>sorry</html>", { status: 451, statusText: "Unavailable" });
    const page = await assertRejects(() => fetch("hf:ada/small", { settings }), HubRefusal);
    assert(!page.message.includes("<html>"));
    hub.fault = () => new Response("<html>welcome</html>");
    const other = await assertRejects(() => fetch("hf:ada/small", { settings }), HubError);
    assertStringIncludes(other.message, "cannot be read");
  });
});

Deno.test("offline, and where the hub cannot be reached, the cache serves what it has", async () => {
  await withHub({ "ada/small": repository(commonFiles(noise(2000))) }, async (hub, settings) => {
    const offline = { ...settings, offline: true };
    const none = await assertRejects(() => fetch("hf:ada/small", { settings: offline }), InputError);
    assertStringIncludes(none.message, "hf:ada/small: is not in the cache");
    assertStringIncludes(none.hint!, "HF_HUB_OFFLINE");
    assertEquals(hub.seen.length, 0);

    const path = await fetch("hf:ada/small", { settings });
    hub.seen.length = 0;
    assertEquals(await fetch("hf:ada/small", { settings: offline }), path);
    assertEquals(await fetch(`hf:ada/small@${FIRST}`, { settings: offline }), path);
    await assertRejects(
      () => fetch("hf:ada/small@v2", { settings: offline }),
      InputError,
      "not in the cache",
    );
    assertEquals(hub.seen.length, 0);

    const dead = { ...settings, endpoint: "http://127.0.0.1:9" };
    const notes: string[] = [];
    assertEquals(await fetch("hf:ada/small", { settings: dead, onNote: (note) => notes.push(note) }), path);
    assertStringIncludes(notes[0]!, "127.0.0.1:9 cannot be reached");
    const error = await assertRejects(() => fetch("hf:ada/other", { settings: dead }), HubUnreachableError);
    assertEquals(error.exitCode, 1);

    await Deno.remove(join(path, "model.safetensors"));
    const part = await assertRejects(() => fetch("hf:ada/small", { settings: offline }), InputError);
    assertStringIncludes(part.message, "no model.safetensors of it");
  });
});

Deno.test("what Python's cache has is not fetched again", async () => {
  const files = commonFiles(noise(2000));
  await withHub({ "ada/small": repository(files) }, async (hub, settings, folder) => {
    const repo = join(folder, "hub/models--ada--small");
    const snapshot = join(repo, "snapshots", FIRST);
    for (const path of [snapshot, join(repo, "blobs"), join(repo, "refs")]) {
      await Deno.mkdir(path, { recursive: true });
    }
    await Deno.writeTextFile(join(repo, "refs/main"), FIRST);
    for (const [name, bytes] of Object.entries(files)) {
      if (name.includes("/")) continue;
      const hash = bytes.length > 1000 ? sha256(bytes) : gitHash(bytes);
      await Deno.writeFile(join(repo, "blobs", hash), bytes);
      await Deno.symlink(`../../blobs/${hash}`, join(snapshot, name));
    }
    assertEquals(await fetch("hf:ada/small", { settings: settingsOf(hub, folder) }), snapshot);
    assertEquals(hub.downloads, []);
    assertEquals(await fetch("hf:ada/small", { settings: { ...settings, offline: true } }), snapshot);
    // Such as one of a cluster, that only its keeper writes to: here a folder is where the ref would be.
    await Deno.remove(join(repo, "refs/main"));
    await Deno.mkdir(join(repo, "refs/main"));
    assertEquals(await fetch("hf:ada/small", { settings }), snapshot);
  });
});
