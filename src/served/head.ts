/**
 * The head of a model behind another Limbeck, fetched once.
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { join } from "@std/path";
import { isObject } from "../base/json.ts";
import { writeFolderAtomically } from "../formats/files.ts";
import { hostOf, type ServerRequests } from "./requests.ts";
import { plainText } from "../base/plain_text.ts";
import { ServedError, ServedRefusal, type ServerSettings } from "./server.ts";

/** Names that a file of a model folder may have. */
const NAME = /^[A-Za-z0-9_][A-Za-z0-9._-]*$/;
const LONGEST_LINE = 16 << 20;

/** Tries of a connection that is cut: it begins anew each time. */
const TRIES = 5;

/**
 * Fetches it into a folder, whole or not at all.
 *
 * @param path A folder that is not there yet
 * @throws {ServedRefusal} the server gives none, or something else
 * @throws {ServedError} it cannot be reached, or goes on cutting the connection
 */
export async function fetchHead(
  requests: ServerRequests,
  settings: ServerSettings,
  path: string,
): Promise<void> {
  for (let tried = 1;; tried++) {
    try {
      return await fetchOnce(requests, settings, path);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      if (tried < TRIES) continue;
      throw new ServedError(
        `${hostOf(settings)} cut the connection ${tried} times (${plainText(error.message)})`,
        { hint: "Try again later.", cause: error },
      );
    }
  }
}

async function fetchOnce(requests: ServerRequests, settings: ServerSettings, path: string): Promise<void> {
  const where = hostOf(settings);
  const refuse = (what: string): never => {
    throw new ServedRefusal(`answers with ${what} where the model's head was asked for`, {
      where,
      hint:
        "Only `limbeck serve` gives heads and hidden states: with another server, take teacher.cache.topK.",
    });
  };
  await writeFolderAtomically(path, async (temporary) => {
    let file: Deno.FsFile | undefined;
    let left = 0;
    let isWhole = false;
    try {
      const body = await requests.stream(`hidden_states/head?model=${encodeURIComponent(settings.model)}`);
      for await (const line of linesOf(body)) {
        let told: unknown;
        try {
          told = JSON.parse(line);
        } catch {
          refuse("no JSON");
        }
        if (!isObject(told)) return refuse("no object");
        if (typeof told.piece === "string") {
          const bytes = Uint8Array.fromBase64(told.piece);
          if (!file || (left -= bytes.length) < 0) return refuse("more bytes than were announced");
          for (let done = 0; done < bytes.length;) done += await file.write(bytes.subarray(done));
          continue;
        }
        if (left !== 0) refuse("fewer bytes than were announced");
        file?.close();
        file = undefined;
        if (typeof told.name !== "string") {
          isWhole = Object.keys(told).length === 0;
          continue;
        }
        if (!NAME.test(told.name) || !Number.isSafeInteger(told.bytes)) refuse("a file of an odd name");
        left = told.bytes as number;
        file = await Deno.open(join(temporary, told.name), { write: true, createNew: true });
      }
      if (!isWhole) refuse("an answer that was cut off");
    } finally {
      file?.close();
    }
  });
}

async function* linesOf(body: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncGenerator<string> {
  let pending = "";
  for await (const chunk of body.pipeThrough(new TextDecoderStream())) {
    const lines = (pending + chunk).split("\n");
    pending = lines.pop()!;
    if (pending.length > LONGEST_LINE) throw new ServedRefusal("answers with a line that has no end", {});
    yield* lines;
  }
  if (pending !== "") yield pending;
}
