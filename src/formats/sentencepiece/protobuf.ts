/**
 * Protocol buffers' wire format (https://protobuf.dev/programming-guides/encoding), read strictly: what does not fit into its message is
 * refused. Fields that nobody asks for are skipped.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";

/** A field as it stands on the wire. */
export type WireValue =
  | { readonly kind: "varint"; readonly value: bigint }
  | { readonly kind: "fixed32" | "fixed64" | "bytes"; readonly value: Uint8Array };

const KINDS = { 0: "varint", 1: "fixed64", 2: "bytes", 5: "fixed32" } as const;

/**
 * The fields of a message in their order.
 *
 * @param where How to name the file and the message in errors
 * @throws {InputError} at the first byte that is no part of a field
 */
export function* wireFields(bytes: Uint8Array, where: string): Generator<{ field: number } & WireValue> {
  let at = 0;
  const wrong = (what: string) =>
    new InputError(`${what} at byte ${at}`, {
      where,
      hint: "The file is damaged, cut short or not a SentencePiece model; fetch it again.",
    });

  function varint(): bigint {
    if (bytes[at] < 128) return BigInt(bytes[at++]);
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      if (at >= bytes.length) throw wrong("a number is cut off");
      const byte = bytes[at++];
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) {
        if (value >> 64n) break;
        return value;
      }
    }
    throw wrong("a number has more than 64 bits");
  }

  function take(length: bigint): Uint8Array {
    if (length > bytes.length - at) {
      throw wrong(`${length} bytes are announced where ${bytes.length - at} are left`);
    }
    at += Number(length);
    return bytes.subarray(at - Number(length), at);
  }

  while (at < bytes.length) {
    const key = varint();
    const field = Number(key >> 3n);
    const kind = KINDS[Number(key & 7n) as keyof typeof KINDS];
    if (field === 0 || field >= 2 ** 29 || kind === undefined) throw wrong(`${key} begins no field`);
    if (kind === "varint") yield { field, kind, value: varint() };
    else if (kind === "bytes") yield { field, kind, value: take(varint()) };
    else yield { field, kind, value: take(kind === "fixed32" ? 4n : 8n) };
  }
}

/** What a message's known fields may be. */
export type FieldType = "text" | "bytes" | "float" | "int" | "bool";

/**
 * The last value of every known field that a message has, as protocol buffers take it.
 *
 * @param known Name and type by number
 * @throws {InputError} for a field of another type, and text that is not UTF-8
 */
export function readMessage(
  bytes: Uint8Array,
  known: Readonly<Record<number, readonly [name: string, type: FieldType]>>,
  where: string,
): Record<string, unknown> {
  const found: Record<string, unknown> = {};
  for (const wire of wireFields(bytes, where)) {
    const entry = known[wire.field];
    if (!entry) continue;
    const [name, type] = entry;
    found[name] = valueOf(wire, type, where, name);
  }
  return found;
}

const WIRES: Readonly<Record<FieldType, WireValue["kind"]>> = {
  text: "bytes",
  bytes: "bytes",
  float: "fixed32",
  int: "varint",
  bool: "varint",
};

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function valueOf(wire: WireValue, type: FieldType, where: string, name: string): unknown {
  const wrong = (what: string, cause?: unknown) => new InputError(`${name} ${what}`, { where, cause });
  if (wire.kind !== WIRES[type]) throw wrong(`is written as ${wire.kind}, where ${WIRES[type]} is right`);
  // Negative numbers are written as 64 bits in two's complement.
  if (wire.kind === "varint") {
    return type === "bool" ? wire.value !== 0n : Number(BigInt.asIntN(32, wire.value));
  }
  const { value } = wire;
  if (type === "float") return new DataView(value.buffer, value.byteOffset, 4).getFloat32(0, true);
  if (type === "bytes") return value;
  try {
    return utf8.decode(value);
  } catch (cause) {
    throw wrong("is not UTF-8", cause);
  }
}
