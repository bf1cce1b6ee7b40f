/** Requests that the document allows, and such that are a mutation away from it, at every route: never a failure of the service. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertGreater } from "@std/assert";
import Ajv from "npm:ajv@8.20.0/dist/2020.js";
import fc from "npm:fast-check@4.10.2";
import { fakeNamed, submit, untilIdle, withService } from "./harness.ts";

interface Schema {
  $ref?: string;
  type?: string | string[];
  enum?: unknown[];
  const?: unknown;
  anyOf?: Schema[];
  oneOf?: Schema[];
  allOf?: Schema[];
  properties?: Record<string, Schema>;
  required?: string[];
  additionalProperties?: boolean | Schema;
  items?: Schema;
  prefixItems?: Schema[];
  pattern?: string;
  minimum?: number;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
  minItems?: number;
  maxItems?: number;
}

interface Operation {
  operationId: string;
  parameters?: { name: string; in: "path" | "query" | "header"; required?: boolean; schema: Schema }[];
  requestBody?: { content: Record<string, { schema: Schema }> };
  responses: Record<string, { content?: Record<string, unknown> }>;
}

interface Route {
  path: string;
  method: string;
  operation: Operation;
}

interface Document {
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, Schema> };
}

const nasty = fc.oneof(
  fc.constantFrom<unknown>(
    ...[
      null,
      true,
      -1,
      0,
      1e308,
      -0.5,
      "",
      "\u0000",
      "\ud800",
      "__proto__",
      "NaN",
      "null",
      "../../etc/passwd",
      "file:///etc/passwd",
    ],
    ...[
      "https://evil.example/x.ts",
      "npm:left-pad",
      "💧".repeat(200),
      "a".repeat(5000),
      [],
      {},
      [[]],
      "{{ 7 * 7 }}",
      "last",
    ],
  ),
  fc.string({ unit: "binary", maxLength: 40 }),
  fc.double(),
  fc.jsonValue({ maxDepth: 3 }),
);

/** Values that a schema allows, about; formats and patterns are left to chance. */
function valid(schema: Schema, document: Document, depth = 0): fc.Arbitrary<unknown> {
  const of = (inner: Schema) => valid(inner, document, depth + 1);
  if (schema.$ref) return of(document.components.schemas[schema.$ref.split("/").at(-1)!]!);
  if (schema.allOf) return of(schema.allOf[0]!);
  if (schema.const !== undefined) return fc.constant(schema.const);
  if (schema.enum) return fc.constantFrom(...schema.enum);
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return fc.oneof(...choices.map(of));
  const type = Array.isArray(schema.type) ? schema.type[0] : schema.type;
  switch (type) {
    case "integer":
      return fc.integer({
        min: Math.max(schema.minimum ?? -10, -1e6),
        max: Math.min(schema.maximum ?? 1000, 1e6),
      });
    case "number":
      return fc.double({ min: schema.minimum ?? -10, max: schema.maximum ?? 1000, noNaN: true });
    case "boolean":
      return fc.boolean();
    case "null":
      return fc.constant(null);
    case "string":
      return fc.oneof(
        fc.constantFrom(
          "model",
          "train.jsonl",
          "cross-entropy",
          "lora",
          "1",
          "running",
          "bytes=0-3",
          "fine-tune",
        ),
        fc.string({ minLength: schema.minLength ?? 0, maxLength: Math.min(schema.maxLength ?? 30, 30) }),
      );
    case "array":
      return fc.array(schema.items ? of(schema.items) : fc.jsonValue(), {
        minLength: schema.minItems ?? 0,
        maxLength: Math.min(schema.maxItems ?? 3, 3),
      });
    case "object": {
      if (depth > 6) return fc.constant({});
      const required = new Set(schema.required);
      const entries = Object.entries(schema.properties ?? {});
      const record = fc.record(
        Object.fromEntries(entries.map(([name, inner]) => [name, of(inner)])),
        { requiredKeys: entries.map(([name]) => name).filter((name) => required.has(name)) },
      );
      return record;
    }
    default:
      return nasty;
  }
}

/** The value with one part of it, picked by `where`, replaced, taken away or doubled. */
function mutated(value: unknown, where: number, junk: unknown): unknown {
  const paths: (string | number)[][] = [[]];
  const walk = (node: unknown, path: (string | number)[]) => {
    if (typeof node !== "object" || node === null) return;
    for (const key of Object.keys(node)) {
      paths.push([...path, key]);
      walk((node as Record<string, unknown>)[key], [...path, key]);
    }
  };
  walk(value, []);
  const path = paths[where % paths.length]!;
  if (path.length === 0) return junk;
  const copy = structuredClone(value) as Record<string, unknown>;
  let node = copy;
  for (const key of path.slice(0, -1)) node = node[key] as Record<string, unknown>;
  const last = path.at(-1)!;
  if (where % 3 === 0) delete node[last];
  else if (where % 3 === 1) node[last] = junk;
  else Object.defineProperty(node, `${last}x`, { value: junk, enumerable: true });
  return copy;
}

/** What is wrong with a JSON answer, by the document; undefined for nothing. */
function answersOf(document: Document) {
  const ajv = new Ajv.default({ strict: false, validateFormats: false });
  ajv.addSchema({ ...document, $id: "document" });
  const pointer = (part: string) => part.replaceAll("~", "~0").replaceAll("/", "~1");
  return (path: string, method: string, status: number, body: unknown): string | undefined => {
    const { responses } = document.paths[path]![method.toLowerCase()]!;
    const given = responses[status] ? status : "default";
    const parts = [
      "paths",
      path,
      method.toLowerCase(),
      "responses",
      String(given),
      "content",
      "application/json",
    ];
    const at = `document#/${[...parts, "schema"].map(pointer).map(encodeURIComponent).join("/")}`;
    const validate = ajv.getSchema(at);
    if (!validate) return `no schema at ${at}`;
    return validate(body) ? undefined : ajv.errorsText(validate.errors);
  };
}

const HEADER = /^[\t\x20-\x7e\x80-\xff]*$/;

/** Statuses of the service's own that say that something passes by itself. */
const PASSES = new Set(["gpu_busy", "busy", "not_ready", "inference_ended"]);

Deno.test("no request makes the service fail, and every refusal is told in the same shape", () =>
  withService(async (test) => {
    const id = await submit(test);
    await untilIdle(test.service);
    const { folder } = test;
    const { folder: runFolder } = (await test.service.store.get(id))!;
    await Deno.mkdir(`${runFolder}/adapter`);
    const config = { base_model_name_or_path: `${runFolder}/base` };
    await Deno.writeTextFile(`${runFolder}/adapter/adapter_config.json`, JSON.stringify(config));
    const document: Document = (await test.call("GET", "/openapi.json")).body;
    const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => ({
        path,
        method: method.toUpperCase(),
        operation,
      }))
    );
    assertGreater(operations.length, 35);
    const artifacts: string[] = (await test.call("GET", `/v1/runs/${id}/artifacts`)).body.data
      .map(({ name }: { name: string }) => name);
    assert(artifacts.includes("report.html") && artifacts.includes("adapter/adapter_config.json"));
    const seen = new Map<number, number>();
    const promises = answersOf(document);
    const check = async ({ path, method, operation }: Route, response: Response, sent: string) => {
      seen.set(response.status, (seen.get(response.status) ?? 0) + 1);
      const type = response.headers.get("Content-Type") ?? "";
      const isStream = type.startsWith("text/event-stream");
      if (isStream) return void await response.body?.cancel();
      const text = await response.text();
      const about = `${operation.operationId}: ${sent} -> ${response.status} ${text.slice(0, 300)}`;
      assert(!text.includes(folder), `a path of the machine: ${about}`);
      assert(operation.responses[response.status] || operation.responses.default, `undocumented: ${about}`);
      if (type.startsWith("application/json") && !path.includes("/artifacts/{")) {
        const broken = promises(path, method, response.status, JSON.parse(text));
        assert(broken === undefined, `not what the document promises: ${about} ${broken}`);
      }
      if (response.status < 400) return;
      const { error } = JSON.parse(text);
      assertEquals([typeof error.message, typeof error.type], ["string", "string"], about);
      assert("param" in error && "code" in error && error.message.length > 0, about);
      if (response.status >= 500) {
        assert(
          response.status === 503 && PASSES.has(error.code) && response.headers.has("Retry-After"),
          about,
        );
      }
    };
    for (const route of operations) {
      const { path, method, operation } = route;
      const parameters = operation.parameters ?? [];
      const content = operation.requestBody?.content ?? {};
      const schema = content["application/json"]?.schema;
      // Looking at models starts processes; a few are enough.
      const slow = /validate|estimate|preview|completions/.test(path);
      await fc.assert(
        fc.asyncProperty(
          fc.record(
            Object.fromEntries(parameters.map((p) => [p.name, fc.oneof(valid(p.schema, document), nasty)])),
          ),
          schema ? valid(schema, document) : fc.constant(undefined),
          fc.record({ mutate: fc.boolean(), where: fc.nat(), junk: nasty, goodId: fc.boolean() }),
          async (given, body, { mutate, where, junk, goodId }) => {
            let url = path;
            const query = new URLSearchParams();
            const headers = new Headers();
            for (const parameter of parameters) {
              if (parameter.name === "name" && goodId) given.name = artifacts[where % artifacts.length]!;
              const value = typeof given[parameter.name] === "string"
                ? given[parameter.name] as string
                : JSON.stringify(given[parameter.name]);
              if (parameter.in === "path") {
                const good = parameter.name === "id" && goodId && path.startsWith("/v1/runs");
                url = url.replace(
                  `{${parameter.name}}`,
                  good ? id : encodeURIComponent(value.toWellFormed()) || "%20",
                );
              } else if (parameter.in === "query") query.set(parameter.name, value.toWellFormed());
              else if (HEADER.test(value)) headers.set(parameter.name, value);
            }
            const sent = schema === undefined
              ? undefined
              : JSON.stringify(mutate ? mutated(body, where, junk) : body) ?? "";
            if (sent !== undefined) headers.set("Content-Type", "application/json");
            if (goodId && method === "DELETE" && path === "/v1/runs/{id}") return;
            const asked = query.size > 0 ? `${url}?${query}` : url;
            const response = await test.request(asked, {
              method,
              headers,
              ...(sent === undefined ? {} : { body: sent }),
            });
            await check(route, response, `${asked} ${sent?.slice(0, 500)}`);
          },
        ),
        { numRuns: slow ? 15 : 60, seed: 7, endOnFailure: true },
      );
    }
    for (const status of [200, 400, 404, 409]) assertGreater(seen.get(status) ?? 0, 0, String(status));
  }));

Deno.test("bodies that are no JSON, too deep, too long or of another type are refused in the same shape", () =>
  withService(async (test) => {
    const send = async (body: BodyInit, type: string | null = "application/json", path = "/v1/runs") => {
      const response = await test.request(path, {
        method: "POST",
        body,
        ...(type === null ? {} : { headers: { "Content-Type": type } }),
      });
      const told = await response.json();
      if (response.status >= 400) assertEquals(typeof told.error.message, "string");
      return response.status;
    };
    const recipe = JSON.stringify(fakeNamed());
    assertEquals(await send("{"), 400);
    assertEquals(await send(""), 400);
    assertEquals(await send("\ud800"), 400);
    assertEquals(await send(`{"recipe":${"[".repeat(50_000)}${"]".repeat(50_000)}}`), 400);
    assertEquals(await send(`{"recipe":${'{"a":'.repeat(20_000)}1${"}".repeat(20_000)}}`), 400);
    assertEquals(await send(`{"recipe":{"__proto__":{"polluted":true},"constructor":{}}}`), 400);
    assertEquals(({} as Record<string, unknown>).polluted, undefined);
    assertEquals(await send(`{"recipe":${recipe}}`), 202);
    assertEquals(await send(`{"recipe":${recipe.replace("{", '{"__proto__":{"a":1},')}}`), 400);
    // One mutation away from JSON that is right: a part of the text cut out.
    const text = `{"recipe":${recipe}}`;
    for (let i = 0; i + 3 < text.length; i += 7) {
      const cut = text.slice(0, i) + text.slice(i + 3);
      const status = await send(cut);
      assert(status === 400 || status === 202, `${status} for ${cut}`);
    }
    assertEquals(await send(`{"recipe":${recipe},"extra":1}`), 400);
    assertEquals(await send(`{"recipe":${recipe}}`, "text/plain"), 415);
    assertEquals(await send(`{"recipe":${recipe}}`, "application/x-www-form-urlencoded"), 415);
    assertEquals(await send(`{"recipe":${recipe}, "metadata":{"a":"${"x".repeat(1 << 20)}"}}`), 413);
    const stream = new ReadableStream<Uint8Array>({
      pull: (controller) => controller.enqueue(new Uint8Array(1 << 18).fill(0x20)),
    });
    assertEquals(await send(stream), 413, "a body without a length");
    assertEquals(await send("x", "multipart/form-data; boundary=y", "/v1/files"), 400);
    assertEquals(await send("{}", "application/json", "/v1/files"), 415);
  }));
