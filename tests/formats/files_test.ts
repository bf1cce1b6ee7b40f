// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import {
  DiskFullError,
  openFile,
  removeUnfinishedFolders,
  writeAtomically,
  writeFolderAtomically,
  writeTextAtomically,
} from "../../src/formats/files.ts";
import { memorySource } from "../../src/formats/source.ts";
import { InputError } from "../../src/base/errors.ts";

async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function namesIn(folder: string): string[] {
  return [...Deno.readDirSync(folder)].map((entry) => entry.name).sort();
}

Deno.test("openFile() serves reads that overlap in time, each from its own place", () =>
  inFolder(async (folder) => {
    const bytes = Uint8Array.from({ length: 4096 }, (_, i) => i * 7);
    Deno.writeFileSync(`${folder}/a`, bytes);
    const source = await openFile(`${folder}/a`);
    const reads = Array.from({ length: 64 }, (_, i) => source.read(4000 - i * 60, 33 + i));
    for (const [i, read] of (await Promise.all(reads)).entries()) {
      assertEquals(read, bytes.slice(4000 - i * 60, 4033 - i * 60 + i));
      assertEquals(read.byteOffset, 0);
    }
    source.close?.();
  }));

Deno.test("a byte source refuses a range outside the file, and goes on working", () =>
  inFolder(async (folder) => {
    Deno.writeFileSync(`${folder}/a`, new Uint8Array(10));
    const file = await openFile(`${folder}/a`);
    for (const source of [file, memorySource("m", new Uint8Array(10))]) {
      for (
        const [offset, length] of [[0, 11], [11, 0], [-1, 2], [2, -1], [0.5, 1], [Number.MAX_SAFE_INTEGER, 2]]
      ) {
        await assertRejects(() => source.read(offset, length), InputError);
      }
      assertEquals((await source.read(10, 0)).length, 0);
    }
    file.close?.();
  }));

Deno.test("openFile() says what is wrong with a path", () =>
  inFolder(async (folder) => {
    await assertRejects(() => openFile(`${folder}/none`), InputError, "no such file");
    await assertRejects(() => openFile(folder), InputError, "not a regular file");
  }));

Deno.test("writeAtomically() keeps the old file and leaves nothing else when the writer fails", () =>
  inFolder(async (folder) => {
    await writeTextAtomically(`${folder}/a`, "old");
    await assertRejects(
      () =>
        writeAtomically(`${folder}/a`, async (sink) => {
          await sink.write(new Uint8Array(1000));
          throw new Error("stopped");
        }),
      Error,
      "stopped",
    );
    assertEquals(namesIn(folder), ["a"]);
    assertEquals(Deno.readTextFileSync(`${folder}/a`), "old");
    await writeTextAtomically(`${folder}/a`, "new");
    assertEquals(Deno.readTextFileSync(`${folder}/a`), "new");
  }));

Deno.test("writeAtomically() refuses a size that is not the one announced", () =>
  inFolder(async (folder) => {
    await assertRejects(
      () => writeAtomically(`${folder}/a`, (sink) => sink.write(new Uint8Array(3)), { size: 4 }),
      Error,
      "3 bytes were written where 4 were announced",
    );
    assertEquals(namesIn(folder), []);
  }));

Deno.test("writeAtomically() says before it writes that a size is more than is free", () =>
  inFolder(async (folder) => {
    const error = await assertRejects(
      () => writeAtomically(`${folder}/a`, () => Promise.reject(new Error("began")), { size: 2 ** 60 }),
      DiskFullError,
      "disk full",
    );
    assertEquals(error.bytesNeeded, 2 ** 60);
    assertEquals(namesIn(folder), []);
  }));

Deno.test("writeAtomically() turns a full disk met while writing into DiskFullError and removes its part", () =>
  inFolder(async (folder) => {
    // The system's own error for a full disk, from the device that is always full.
    const full = await Deno.open("/dev/full", { write: true });
    const error = await assertRejects(() =>
      writeAtomically(`${folder}/a`, async (sink) => {
        await sink.write(new Uint8Array(5000));
        await full.write(new Uint8Array(1));
      }), DiskFullError);
    full.close();
    assertEquals(error.bytesNeeded, 5001);
    assertStringIncludes(error.message, "disk full");
    assertEquals(namesIn(folder), []);
  }));

Deno.test("writeFolderAtomically() refuses a folder in use, replaces one when told, and keeps it when filling fails", () =>
  inFolder(async (folder) => {
    const out = `${folder}/deep/out`;
    await writeFolderAtomically(out, (temporary) => Deno.writeTextFile(`${temporary}/a`, "1"));
    await assertRejects(
      () => writeFolderAtomically(out, () => Promise.resolve()),
      InputError,
      "already there",
    );
    await assertRejects(
      () => writeFolderAtomically(out, () => Promise.reject(new Error("stopped")), { replace: true }),
      Error,
      "stopped",
    );
    assertEquals([namesIn(`${folder}/deep`), namesIn(out)], [["out"], ["a"]]);
    await writeFolderAtomically(out, (temporary) => Deno.writeTextFile(`${temporary}/b`, "2"), {
      replace: true,
    });
    assertEquals([namesIn(`${folder}/deep`), namesIn(out)], [["out"], ["b"]]);
    assert(Deno.statSync(out).isDirectory);
  }));

Deno.test("removeUnfinishedFolders() removes what a killed writer left, and nothing else", () =>
  inFolder(async (folder) => {
    // As a writer that never comes back leaves them.
    const never = writeFolderAtomically(`${folder}/step-1`, async (temporary) => {
      await Deno.writeTextFile(`${temporary}/half`, "x");
      assertEquals(namesIn(folder), [temporary.slice(folder.length + 1)]);
      for (const name of ["step-1", ".git", ".step-1.0123456.tmp"]) await Deno.mkdir(`${folder}/${name}`);
      await Deno.mkdir(`${folder}/.step-1.01234567.old`);
      await Deno.writeTextFile(`${folder}/.log.01234567.tmp`, "a file that somebody writes");
      await removeUnfinishedFolders(folder);
      throw new Error("killed");
    });
    await assertRejects(() => never, Error, "killed");
    assertEquals(namesIn(folder), [".git", ".log.01234567.tmp", ".step-1.0123456.tmp", "step-1"]);
    await removeUnfinishedFolders(`${folder}/absent`);
  }));
