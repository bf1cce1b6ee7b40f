/** What the service gives to a page that trains in its tab. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertMatch } from "@std/assert";
import { newToken, TokenList } from "../../src/server/auth/tokens.ts";
import { withService } from "./harness.ts";

const submit = newToken("ada", "submit");
const read = newToken("bob", "read");

Deno.test("the page and its worker are for everyone, files of models for whoever may submit", () =>
  withService(async ({ request, call }) => {
    const page = await request("/tab");
    assertEquals(page.status, 200);
    assertMatch(page.headers.get("Content-Type")!, /^text\/html/);
    await page.body?.cancel();
    for (
      const path of [
        "/tab/catalogue.json",
        "/tab/models/model/config.json",
        "/tab/datasets/train.jsonl/train.jsonl",
      ]
    ) {
      assertEquals((await call("GET", path)).status, 401, path);
      assertEquals(
        (await call("GET", path, undefined, { Authorization: `Bearer ${read.secret}` })).status,
        403,
        path,
      );
      assertEquals(
        (await call("GET", path, undefined, { Authorization: `Bearer ${submit.secret}` })).status,
        200,
        path,
      );
    }
  }, { tokens: TokenList.parse(`${submit.line}\n${read.line}`, "tokens") }));

Deno.test("models and datasets are offered with the addresses of their files, which are sent by ranges", () =>
  withService(async ({ call, request, folder, service }) => {
    await Deno.writeTextFile(`${folder}/models/model/secret.bin`, "no file of a model");
    await Deno.writeTextFile(`${folder}/models/two words.gguf`, "GGUF");
    const uploaded = new FormData();
    uploaded.set("purpose", "fine-tune");
    uploaded.set("file", new File(['{"text":"mine"}\n'], "mine.jsonl"));
    assertEquals((await request("/v1/files", { method: "POST", body: uploaded })).status, 200);
    assertEquals((await service.catalogue.datasets()).filter(({ source }) => source === "upload").length, 1);

    const { body } = await call("GET", "/tab/catalogue.json");
    const own = body.models.filter(({ id }: { id: string }) => !id.startsWith("stories"));
    assertEquals(own, [
      { id: "model", files: { "config.json": "models/model/config.json" } },
      { id: "two words.gguf", files: { "two words.gguf": "models/two%20words.gguf/two%20words.gguf" } },
    ]);
    const sets = body.datasets.filter(({ id }: { id: string }) => !id.startsWith("stories"));
    assertEquals(sets, [{ id: "train.jsonl", files: { "train.jsonl": "datasets/train.jsonl/train.jsonl" } }]);

    const part = await request("/tab/models/two%20words.gguf/two%20words.gguf", {
      headers: { Range: "bytes=1-2" },
    });
    assertEquals([part.status, part.headers.get("Content-Range"), await part.text()], [
      206,
      "bytes 1-2/4",
      "GU",
    ]);
    const after = await request("/tab/models/model/config.json", { headers: { Range: "bytes=9-" } });
    assertEquals([after.status, after.headers.get("Content-Range")], [416, "bytes */2"]);
    await after.body?.cancel();
    for (
      const path of [
        "models/model/secret.bin",
        "models/model/..%2Fmodel%2Fconfig.json",
        "models/..%2Fmodels/config.json",
        "models/none/config.json",
        "datasets/train.jsonl/other.jsonl",
        "datasets/..%2Fdatasets/train.jsonl",
      ]
    ) assertEquals((await call("GET", `/tab/${path}`)).status, 404, path);
  }));

Deno.test("the worker may make WebAssembly and ask this service, and nothing else", () =>
  withService(async ({ request }) => {
    const worker = await request("/tab/worker.js");
    assertEquals(worker.status, 200);
    assertEquals(
      worker.headers.get("Content-Security-Policy"),
      "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'",
    );
    assert((await worker.text()).includes("createShaderModule"));
    const page = await request("/tab");
    assert(!page.headers.get("Content-Security-Policy")!.includes("unsafe"));
    await page.body?.cancel();
  }));
