// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertThrows } from "@std/assert";
import { DiskFullError } from "../../src/formats/files.ts";
import { LineFile } from "../../src/served/line_file.ts";
import { withSmallDisk } from "../runs/small_disk.ts";

Deno.test("a line that a full disk cuts is not in the file, and what is added once there is room is", () =>
  withSmallDisk((folder) => {
    const path = `${folder}/runs/lines`;
    const filler = `${folder}/runs/filler`;
    const { file } = LineFile.open<string>(path);
    file.append("first");
    const room = Deno.openSync(filler, { write: true, create: true });
    assertThrows(() => {
      for (;;) room.writeSync(new Uint8Array(4096));
    });
    room.close();
    // Some bytes still fit into the page that the file has.
    assertThrows(() => {
      for (let i = 0;; i++) file.append("x".repeat(100) + i);
    }, DiskFullError);
    const before = Deno.readTextFileSync(path);
    assert(before.endsWith('"\n') && before.length > 4000);
    assertThrows(() => file.rewrite(["y".repeat(9000)]), DiskFullError);
    assertEquals(Deno.readTextFileSync(path), before);
    Deno.removeSync(filler);
    file.append("last");
    file.close();
    const again = LineFile.open<string>(path);
    assertEquals([again.values[0], again.values.at(-1)], ["first", "last"]);
    again.file.rewrite(["one", "two"]);
    again.file.append("three");
    again.file.close();
    const { values, file: third } = LineFile.open<string>(path);
    third.close();
    assertEquals(values, ["one", "two", "three"]);
    return Promise.resolve();
  }));
