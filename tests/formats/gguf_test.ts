// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertRejects } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { toFloat32 } from "../../src/formats/dtype.ts";
import { openFile } from "../../src/formats/files.ts";
import { GgufFile } from "../../src/formats/gguf/gguf.ts";
import { unpackGguf } from "../../src/formats/gguf/types.ts";
import { writeGguf } from "../../src/formats/gguf/write.ts";
import { memorySource } from "../../src/formats/source.ts";
import { sharedPath, sharedTest } from "../shared.ts";

async function sha256(data: ArrayBufferView<ArrayBuffer>): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", data)).toHex();
}

async function readJson<T>(path: string): Promise<T> {
  return JSON.parse(await Deno.readTextFile(sharedPath(path)));
}

sharedTest("GgufFile.open() accepts and refuses as the corpus of malformed files says", async () => {
  type Case = { file: string; expect: "accept" | "refuse" | "either"; why: string };
  const cases = await readJson<Case[]>("goldens/gguf/malformed/malformed.json");
  const verdicts: string[] = [];
  for (const { file, expect, why } of cases) {
    const source = await openFile(sharedPath(`goldens/gguf/malformed/${file}`));
    const error = await GgufFile.open(source).then(() => undefined, (error) => error);
    if (error !== undefined && !(error instanceof InputError)) throw error;
    const accepted = error === undefined;
    if (expect !== "either" && accepted !== (expect === "accept")) {
      verdicts.push(`${file} (${why}): ${error?.message ?? "accepted"}`);
    }
    source.close?.();
  }
  assertEquals([verdicts, cases.length], [[], 38]);
});

sharedTest(
  "GgufFile.open() refuses a valid file cut anywhere, and never breaks on one flipped byte",
  async () => {
    const bytes = await Deno.readFile(sharedPath("goldens/gguf/malformed/valid.gguf"));
    const whole = await GgufFile.open(memorySource("valid", bytes));
    const last = Math.max(...[...whole.tensors.values()].map((tensor) => tensor.end));
    for (let length = 0; length < last; length++) {
      await assertRejects(() => GgufFile.open(memorySource("cut", bytes.subarray(0, length))), InputError);
    }
    let refused = 0;
    for (let at = 0; at < whole.tensors.values().next().value!.begin; at++) {
      for (const flip of [0x01, 0x80, 0xff]) {
        const changed = bytes.slice();
        changed[at] ^= flip;
        await GgufFile.open(memorySource("changed", changed)).catch((error) => {
          if (!(error instanceof InputError)) throw error;
          refused++;
        });
      }
    }
    assertEquals(refused > 300, true);
  },
);

for (const stem of ["tied_q8_0", "untied_mixed"]) {
  sharedTest(`GgufFile reads the tensors and metadata of ${stem}.gguf`, async () => {
    type Tensor = {
      name: string;
      type: string;
      ne: number[];
      offset: number;
      bytes: number;
      values_sha256: string;
    };
    type Golden = { tensors: Tensor[]; metadata: Record<string, unknown>; data_offset: number };
    const golden = await readJson<Golden>(`goldens/gguf/${stem}.json`);
    const file = await GgufFile.open(await openFile(sharedPath(`goldens/gguf/${stem}.gguf`)));
    assertEquals([...file.tensors.keys()], golden.tensors.map((tensor) => tensor.name));
    for (const { name, type, ne, offset, bytes, values_sha256 } of golden.tensors) {
      const entry = file.entry(name);
      assertEquals([entry.type.name, entry.shape, entry.begin, entry.end - entry.begin], [
        type,
        ne.toReversed(),
        offset,
        bytes,
      ]);
      const { dtype, data } = await file.read(name);
      assertEquals(await sha256(toFloat32(dtype, data)), values_sha256, name);
      const rows = await file.readRows(name, 3, 5);
      const width = data.length / entry.shape[0];
      assertEquals(rows.data, data.slice(3 * width, 8 * width));
      if (entry.shape.length === 1) continue;
      assertEquals(unpackGguf(type, await file.readBlocks(name, 3, 5)), rows.data);
    }
    for (const [key, value] of Object.entries(golden.metadata)) {
      assertEquals(file.metadata.get(key), value as string);
    }
    file.close();
  });
}

Deno.test("a type that cannot be read is named: by the file's reader where its size is not known, else by the tensor's", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const path = `${folder}/a.gguf`;
    const tensor = { name: "tensor", type: "F32", shape: [2, 64] } as const;
    await writeGguf(path, new Map(), [tensor], () => Promise.resolve(new Float32Array(128)));
    const bytes = await Deno.readFile(path);
    // Magic, version, two counts; the name with its length, the number of dimensions, two dimensions.
    const at = 24 + 8 + tensor.name.length + 4 + 16;
    const typed = (type: number) => {
      const changed = bytes.slice();
      new DataView(changed.buffer).setUint32(at, type, true);
      return memorySource("a.gguf", changed);
    };
    for (
      const [type, expected] of [[40, "stored as NVFP4"], [41, "stored as Q1_0"], [
        99,
        "unknown type 99",
      ]] as const
    ) {
      await assertRejects(
        () => GgufFile.open(typed(type)),
        InputError,
        `tensor tensor: ${type > 90 ? "" : "it is "}${expected}`,
      );
    }
    const integers = await GgufFile.open(typed(24));
    await assertRejects(() => integers.read("tensor"), InputError, "tensor tensor is stored as I8");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
