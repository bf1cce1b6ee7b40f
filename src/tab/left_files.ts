/**
 * What a run left in a tab, to be downloaded.
 *
 * @module
 */
import { Zip, ZipPassThrough } from "fflate";
import { InputError } from "../base/errors.ts";
import type { LeftFile } from "./messages.ts";
import { folderOf } from "./runs.ts";
import { keptFiles } from "./system.ts";

/** Folders of a run that are of use elsewhere. */
const FOLDERS = ["adapter", "base", "merged"];

/** The files of a run's adapter, and of the base and the merged model where it left some. */
export async function leftFiles(id: string): Promise<LeftFile[]> {
  const files = await keptFiles();
  const found: LeftFile[] = [];
  for (const folder of FOLDERS) {
    const path = `${folderOf(id)}/${folder}`;
    for (const name of await files.list(path)) {
      const content = (await files.get(`${path}/${name}`))?.content;
      if (!content) continue;
      found.push({
        name: `${folder}/${name}`,
        content: name === "adapter_config.json" ? await withoutPath(content) : content,
      });
    }
  }
  return found;
}

/** PEFT's configuration with the name of its base in the place of where that lay in the tab. */
async function withoutPath(config: Blob): Promise<Blob> {
  const text = await config.text();
  const path = (JSON.parse(text) as Record<string, unknown>).base_model_name_or_path;
  if (typeof path !== "string" || !path.startsWith("/")) return config;
  // Only the value is replaced: PEFT's own way to write numbers stays.
  return new Blob([text.replace(JSON.stringify(path), () => JSON.stringify(path.split("/").at(-1)))]);
}

/** Bytes that are packed at once. */
const PIECE = 4 << 20;
/** A file of ZIP without its extension for large ones, and so many bytes, ends here. */
const MOST_BYTES = 2 ** 32 - 1;

/**
 * All of it in one file, as it is: weights get no smaller by packing.
 *
 * @throws {InputError} it is larger than such a file may be
 */
export async function zipped(files: readonly LeftFile[]): Promise<Blob> {
  const bytes = files.reduce((sum, { content }) => sum + content.size + 1024, 0);
  if (bytes > MOST_BYTES) {
    throw new InputError("the files are larger than a ZIP file may be", {
      hint: "Download them one by one.",
    });
  }
  const parts: Blob[] = [];
  const zip = new Zip((error, chunk) => {
    if (error) throw error;
    // A browser may put blobs on the disk.
    parts.push(new Blob([chunk as Uint8Array<ArrayBuffer>]));
  });
  for (const { name, content } of files) {
    const entry = new ZipPassThrough(name);
    zip.add(entry);
    for (let at = 0; at < content.size; at += PIECE) {
      entry.push(new Uint8Array(await content.slice(at, at + PIECE).arrayBuffer()));
    }
    entry.push(new Uint8Array(), true);
  }
  zip.end();
  return new Blob(parts, { type: "application/zip" });
}
