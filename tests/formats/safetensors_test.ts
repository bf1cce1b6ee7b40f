// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { InputError, LimbeckError } from "../../src/base/errors.ts";
import { openFile } from "../../src/formats/files.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import {
  planSafetensors,
  type SafetensorsSpec,
  writeSafetensors,
  writeSafetensorsTo,
} from "../../src/formats/safetensors/write.ts";
import { memorySource } from "../../src/formats/source.ts";
import { sharedPath, sharedTest } from "../shared.ts";

/** A file of a header, given as text, and as many data bytes. */
function fileOf(header: string | Uint8Array, dataBytes: number, claimed?: bigint): Uint8Array {
  const json = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const file = new Uint8Array(8 + json.length + dataBytes);
  new DataView(file.buffer).setBigUint64(0, claimed ?? BigInt(json.length), true);
  file.set(json, 8);
  return file;
}

function open(bytes: Uint8Array): Promise<SafetensorsFile> {
  return SafetensorsFile.open(memorySource("x.safetensors", bytes));
}

const pair = (begin: number, end: number, shape = `[${(end - begin) / 4}]`, dtype = "F32") =>
  `{"dtype":"${dtype}","shape":${shape},"data_offsets":[${begin},${end}]}`;

const accepted: [string, string, number][] = [
  ["no tensors", "{}", 0],
  ["metadata only", '{"__metadata__":{"a":"b"}}', 0],
  ["trailing whitespace", `{"a":${pair(0, 4)}}  \n\t `, 4],
  ["a scalar", `{"a":${pair(0, 4, "[]")}}`, 4],
  ["an empty tensor between others", `{"b":${pair(4, 4, "[0,7]")},"a":${pair(0, 4)},"c":${pair(4, 8)}}`, 8],
  ["tensors out of order in the header", `{"b":${pair(4, 12)},"a":${pair(0, 4)}}`, 12],
  ["a key called __proto__", `{"__proto__":${pair(0, 4)}}`, 4],
  ["sub-byte values that fill whole bytes", `{"a":${pair(0, 3, "[4]", "F6_E2M3")}}`, 3],
  ["an escaped name", String.raw`{"\u0061\n\ud83d\ude42":${pair(0, 4)}}`, 4],
];

const refused: [string, string, number, string][] = [
  ["leading whitespace", ` {"a":${pair(0, 4)}}`, 4, "does not begin with {"],
  ["a byte order mark", `\ufeff{}`, 0, "does not begin with {"],
  ["not an object", "[]", 0, "does not begin with {"],
  ["not JSON", "{]", 0, "expected"],
  ["an unfinished header", '{"a":', 0, "missing"],
  ["two values", "{}{}", 0, "more after the end"],
  ["a duplicate tensor", `{"a":${pair(0, 4)},"a":${pair(0, 4)}}`, 4, "occurs twice"],
  [
    "a duplicate under two spellings",
    String.raw`{"a":${pair(0, 4)},"\u0061":${pair(0, 4)}}`,
    4,
    "occurs twice",
  ],
  [
    "a duplicate field",
    `{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}`,
    4,
    "occurs twice",
  ],
  ["duplicate metadata", '{"__metadata__":{"a":"b","a":"c"}}', 0, "occurs twice"],
  ["metadata that is not strings", '{"__metadata__":{"a":1}}', 0, "not a string"],
  ["metadata that is no object", '{"__metadata__":"x"}', 0, "not an object"],
  ["a hole at the start", `{"a":${pair(4, 8)}}`, 8, "hole"],
  ["a hole between", `{"a":${pair(0, 4)},"b":${pair(8, 12)}}`, 12, "hole"],
  ["overlap", `{"a":${pair(0, 8)},"b":${pair(4, 12)}}`, 12, "overlaps"],
  ["the same bytes twice", `{"a":${pair(0, 4)},"b":${pair(0, 4)}}`, 4, "overlaps"],
  ["bytes at the end", `{"a":${pair(0, 4)}}`, 5, "bytes follow"],
  ["missing bytes", `{"a":${pair(0, 4)}}`, 3, "cut short"],
  ["bytes without tensors", "{}", 1, "bytes follow"],
  ["offsets backwards", `{"a":${pair(4, 0, "[1]")}}`, 4, "before it begins"],
  ["a size that does not fit the shape", `{"a":${pair(0, 4, "[2]")}}`, 4, "needs 8 bytes"],
  ["a size that does not fit the dtype", `{"a":${pair(0, 4, "[1]", "F16")}}`, 4, "needs 2 bytes"],
  ["sub-byte values in half a byte", `{"a":${pair(0, 3, "[5]", "F4")}}`, 3, "whole bytes"],
  ["an unknown dtype", `{"a":${pair(0, 4, "[1]", "F33")}}`, 4, "unknown dtype"],
  ["a dtype from the prototype", `{"a":${pair(0, 4, "[1]", "toString")}}`, 4, "unknown dtype"],
  [
    "an unknown field",
    `{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"strides":[1]}}`,
    4,
    "unknown field",
  ],
  ["a missing field", `{"a":{"dtype":"F32","shape":[1]}}`, 4, "data_offsets"],
  ["three offsets", `{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}}`, 4, "data_offsets"],
  ["a negative size", `{"a":${pair(0, 4, "[-1]")}}`, 4, "not an unsigned integer"],
  ["a size with a point", `{"a":${pair(0, 4, "[1.0]")}}`, 4, "not an unsigned integer"],
  ["a size with an exponent", `{"a":${pair(0, 4, "[1e0]")}}`, 4, "not an unsigned integer"],
  ["a size as a string", `{"a":${pair(0, 4, '["1"]')}}`, 4, "shape"],
  ["a size beyond 2^53", `{"a":${pair(0, 4, "[18446744073709551614]")}}`, 4, "too large"],
  ["a product beyond 2^53", `{"a":${pair(0, 4, "[4294967296,4294967296]")}}`, 4, "counted"],
  ["an overflow hidden by a zero", `{"a":${pair(0, 0, "[4294967296,4294967296,0]")}}`, 0, "counted"],
  ["a byte count beyond 2^53", `{"a":${pair(0, 4, "[9007199254740991]")}}`, 4, "counted"],
  ["a leading zero", `{"a":${pair(0, 4, "[01]")}}`, 4, "expected"],
  ["a trailing comma", `{"a":${pair(0, 4)},}`, 4, "expected"],
  ["a control character in a name", `{"a\n":${pair(0, 4)}}`, 4, "control character"],
  ["half of a surrogate pair", String.raw`{"\ud83d":${pair(0, 4)}}`, 4, "surrogate"],
  ["nesting without bound", `{"a":${"[".repeat(100_000)}`, 0, "nested"],
];

for (const [what, header, data] of accepted) {
  Deno.test(`SafetensorsFile.open() accepts ${what}`, async () => {
    await open(fileOf(header, data));
  });
}

for (const [what, header, data, says] of refused) {
  Deno.test(`SafetensorsFile.open() refuses ${what}`, async () => {
    await assertRejects(() => open(fileOf(header, data)), InputError, says);
  });
}

Deno.test("SafetensorsFile.open() refuses a header that is not UTF-8", async () => {
  await assertRejects(() => open(fileOf(Uint8Array.of(0x7b, 0x22, 0xff, 0x22), 0)), InputError, "UTF-8");
});

Deno.test("SafetensorsFile.open() refuses a header length beyond the file, the format's limit or a double", async () => {
  for (const bytes of [new Uint8Array(0), new Uint8Array(7)]) {
    await assertRejects(() => open(bytes), InputError, "too few");
  }
  await assertRejects(() => open(fileOf("{}", 0, 3n)), InputError, "only 2 follow");
  await assertRejects(() => open(fileOf("{}", 0, 0n)), InputError);
  await assertRejects(() => open(fileOf("{}", 0, 100_000_001n)), InputError, "at most 100000000");
  await assertRejects(() => open(fileOf("{}", 0, 2n ** 64n - 1n)), InputError, "at most 100000000");
});

Deno.test("SafetensorsFile.read() names a tensor that is missing or not a float, and reads rows", async () => {
  const file = await open(fileOf(`{"a":${pair(0, 24, "[3,2]")},"n":${pair(24, 32, "[1]", "I64")}}`, 32));
  await assertRejects(() => file.read("b"), InputError, "no tensor b");
  await assertRejects(() => file.read("n"), InputError, "dtype I64");
  await assertRejects(() => file.readRows("a", 2, 2), InputError, "rows 2 to 4");
  assertEquals((await file.readRows("a", 1, 2)).shape, [2, 2]);
});

Deno.test("writeSafetensors() writes a file that reads back bit for bit, aligned and in a stable order", async () => {
  const path = await Deno.makeTempFile({ suffix: ".safetensors" });
  const values: Record<string, { dtype: SafetensorsSpec["dtype"]; shape: number[]; data: ArrayBufferView }> =
    {
      "b.half": { dtype: "F16", shape: [3], data: Uint16Array.of(1, 2, 0x7c00) },
      "a.byte": { dtype: "U8", shape: [1], data: Uint8Array.of(9) },
      "z.float": { dtype: "F32", shape: [1, 2], data: Float32Array.of(-0, NaN) },
      "y.float": { dtype: "F32", shape: [], data: Float32Array.of(1e-45) },
      "é": { dtype: "BF16", shape: [0, 4], data: new Uint16Array(0) },
    };
  const specs = Object.entries(values).map(([name, { dtype, shape }]) => ({ name, dtype, shape }));
  await writeSafetensors(path, specs, ({ name }) => values[name].data);
  const first = await Deno.readFile(path);
  await writeSafetensors(path, specs.toReversed(), async function* ({ name }) {
    const { buffer, byteLength } = values[name].data;
    for (let at = 0; at < byteLength; at++) yield await Promise.resolve(new Uint8Array(buffer, at, 1));
  });
  assertEquals(await Deno.readFile(path), first);

  const file = await SafetensorsFile.open(await openFile(path));
  assertEquals([...file.tensors.keys()], ["y.float", "z.float", "b.half", "é", "a.byte"]);
  assertEquals([...file.metadata], [["format", "pt"]]);
  for (const [name, { dtype, shape, data }] of Object.entries(values)) {
    const { begin, dtype: readDtype, shape: readShape } = file.entry(name);
    assertEquals([readDtype, readShape], [dtype, shape]);
    assertEquals(await file.readBytes(name), new Uint8Array(data.buffer));
    assertEquals(begin % (name.endsWith("float") ? 8 : 1), name === "z.float" ? 4 : 0);
  }
  file.close();
  await Deno.remove(path);
});

Deno.test("writeSafetensors() refuses a tensor of the wrong length and leaves no file", async () => {
  const folder = await Deno.makeTempDir();
  await assertRejects(
    () =>
      writeSafetensors(`${folder}/a`, [{ name: "w", dtype: "F32", shape: [2] }], () => new Float32Array(3)),
    LimbeckError,
    "tensor w: F32 [2] needs 8 bytes, 12 came",
  );
  assertEquals([...Deno.readDirSync(folder)], []);
  await Deno.remove(folder);
});

Deno.test("planSafetensors() refuses a name twice", () => {
  const w = { name: "w", shape: [1] };
  assertThrows(
    () => planSafetensors([{ ...w, dtype: "F32" }, { ...w, dtype: "F16" }]),
    LimbeckError,
    "named w",
  );
});

sharedTest("planSafetensors() makes the very bytes that safetensors' own writer made", async () => {
  for (const path of ["goldens/merges/inputs.safetensors", "goldens/gguf/blocks.safetensors"]) {
    const file = await SafetensorsFile.open(await openFile(sharedPath(path)));
    const specs = [...file.tensors].map(([name, { dtype, shape }]) => ({ name, dtype, shape }));
    const written: Uint8Array[] = [];
    const sink = {
      position: 0,
      write(bytes: Uint8Array) {
        written.push(bytes.slice());
        sink.position += bytes.length;
        return Promise.resolve();
      },
    };
    const metadata = Object.fromEntries(file.metadata);
    const plan = planSafetensors(specs.toReversed(), metadata);
    await writeSafetensorsTo(sink, plan, (tensor) => file.readBytes(tensor.name));
    const ours = new Uint8Array(await new Blob(written as BlobPart[]).arrayBuffer());
    assertEquals(ours, await Deno.readFile(sharedPath(path)));
    file.close();
  }
});

Deno.test("SafetensorsFile.open() refuses a valid file cut or grown anywhere, and never breaks on one flipped byte", async () => {
  const bytes = fileOf(`{"a":${pair(0, 4)},"__metadata__":{"k":"v"},"b":${pair(4, 12, "[2,1]")}}`, 12);
  for (let length = 0; length < bytes.length; length++) {
    await assertRejects(() => open(bytes.subarray(0, length)), InputError);
  }
  await assertRejects(() => open(Uint8Array.of(...bytes, 0)), InputError);
  let refused = 0;
  for (let at = 0; at < bytes.length - 12; at++) {
    for (let bit = 0; bit < 8; bit++) {
      const changed = bytes.slice();
      changed[at] ^= 1 << bit;
      await open(changed).catch((error) => {
        if (!(error instanceof InputError)) throw error;
        refused++;
      });
    }
  }
  assertEquals(refused > 700, true);
});
