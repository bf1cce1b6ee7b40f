/** Repositories and settings for tests of the hub. */
// @ts-types="../../types/std_path.d.ts"
import { join } from "@std/path";
import type { Patience } from "../../src/hub/hub_requests.ts";
import type { HubSettings } from "../../src/hub/hub_settings.ts";
import { FakeHub, type FakeRepository } from "./fake_hub.ts";

export const FIRST = "1".repeat(40);
export const SECOND = "2".repeat(40);

/** As impatient as tests should be. */
export const HASTE: Patience = { tries: 3, pause: 1, longestPause: 1000, silence: 5000 };

/** Bytes that differ from place to place. */
export function noise(length: number, seed = 1): Uint8Array {
  let state = seed;
  return Uint8Array.from({ length }, () => (state = (state * 48271) % 0x7fffffff) & 0xff);
}

export function text(content: string): Uint8Array {
  return new TextEncoder().encode(content);
}

/** What a repository commonly holds, copies of its weights in other formats too. */
export function commonFiles(weights: Uint8Array = noise(50_000)): Record<string, Uint8Array> {
  return {
    ".gitattributes": text("*.safetensors filter=lfs\n"),
    "README.md": text("# A model\n"),
    "config.json": text('{"model_type": "llama"}\n'),
    "generation_config.json": text("{}\n"),
    "model.safetensors": weights,
    "onnx/model.onnx": noise(3000, 2),
    "pytorch_model.bin": noise(3000, 3),
    "tokenizer.json": noise(2000, 4),
    "tokenizer_config.json": text("{}\n"),
  };
}

/** A repository with one commit, `main`. */
export function repository(files: Record<string, Uint8Array>): FakeRepository {
  return { commits: { [FIRST]: files }, revisions: { main: FIRST } };
}

/** A hub with repositories, and an empty cache beside it. */
export async function withHub(
  repositories: Record<string, FakeRepository>,
  test: (hub: FakeHub, settings: HubSettings, folder: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await using hub = new FakeHub(repositories);
    await test(hub, settingsOf(hub, folder), folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Settings of a cache in a folder. */
export function settingsOf(hub: FakeHub, folder: string, token?: string): HubSettings {
  return {
    endpoint: hub.url,
    cacheFolder: join(folder, "hub"),
    offline: false,
    token: () => Promise.resolve(token),
  };
}

/** Every file below a folder, links with where they lead. */
export async function filesBelow(folder: string): Promise<string[]> {
  const found: string[] = [];
  const visit = async (path: string, at: string): Promise<void> => {
    for await (const { name, isDirectory, isSymlink } of Deno.readDir(path)) {
      const entry = join(path, name);
      if (isDirectory) await visit(entry, `${at}${name}/`);
      else found.push(`${at}${name}${isSymlink ? ` -> ${await Deno.readLink(entry)}` : ""}`);
    }
  };
  await visit(folder, "").catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  });
  return found.sort();
}
