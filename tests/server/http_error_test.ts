// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { HTTPException } from "hono/http-exception";
import { RecipeError } from "../../src/distill/recipe/parse.ts";
import { DeviceError, InputError, LimbeckError, ShapeError, UsageError } from "../../src/base/errors.ts";
import { DiskFullError } from "../../src/formats/files.ts";
import { errorResponse, HttpError, toHttpError } from "../../src/server/http/http_error.ts";
import { RunStateError, StoreError, UnknownRunError } from "../../src/runs/store/store_errors.ts";

const hide = (text: string) => text.replaceAll("/srv/models/tiny", "tiny").replace(/\/srv\/[\w/]+/g, "…");

async function told(error: unknown) {
  const response = errorResponse(toHttpError(error, hide));
  const { error: body } = await response.json();
  return { status: response.status, headers: response.headers, ...body };
}

Deno.test("all problems of a recipe are told, each with its path", async () => {
  const problems = [
    { path: "train.steps", message: "must be at least 1" },
    { path: "teacher.model", message: "/srv/models/tiny has no config.json" },
  ];
  assertEquals(await told(new RecipeError("recipe", problems)).then(({ headers: _, ...rest }) => rest), {
    status: 400,
    message: "train.steps: must be at least 1\nteacher.model: tiny has no config.json",
    type: "invalid_request_error",
    param: "train.steps",
    code: "bad_recipe",
    problems: [
      { param: "train.steps", message: "must be at least 1" },
      { param: "teacher.model", message: "tiny has no config.json" },
    ],
  });
});

Deno.test("what is wrong with a file is told without the file's path", async () => {
  const error = new InputError("is cut, like /srv/other/file", {
    where: "/srv/models/tiny/model.gguf",
    hint: "Copy /srv/models/tiny anew.",
  });
  const { status, message, code } = await told(error);
  assertEquals([status, message, code], [400, "is cut, like …. Copy tiny anew.", "bad_input"]);
});

Deno.test("errors have the statuses of what they mean", async () => {
  for (
    const [error, status, type] of [
      [new UnknownRunError("x"), 404, "invalid_request_error"],
      [new RunStateError("x", "queued", "be paused"), 409, "invalid_request_error"],
      [new DeviceError("does not fit"), 422, "invalid_request_error"],
      [new HttpError(401, "who?"), 401, "authentication_error"],
      [new HttpError(403, "no"), 403, "permission_error"],
      [new HttpError(421, "no"), 421, "permission_error"],
      [new HttpError(429, "slow"), 429, "rate_limit_error"],
      [new HTTPException(400, { message: "Malformed JSON" }), 400, "invalid_request_error"],
      [new HTTPException(413), 413, "invalid_request_error"],
      [new HTTPException(415), 415, "invalid_request_error"],
      [new StoreError("/srv/data", new Error("database or disk is full")), 507, "server_error"],
    ] as const
  ) {
    const body = await told(error);
    assertEquals([body.status, body.type], [status, type], error.message);
    assert(body.message !== "" && typeof body.code !== "undefined" && "param" in body);
  }
  assertEquals((await told(new HTTPException(415))).code, "content_type");
  assertEquals((await told(new HTTPException(413))).code, "too_large");
});

Deno.test("what went wrong in the service is not told", async () => {
  for (
    const error of [
      new TypeError("secret is not a function"),
      new LimbeckError("the process ended with exit code 1: secret", { hint: "secret" }),
      new ShapeError("secret"),
      new UsageError("secret"),
      new StoreError("/srv/data/limbeck.sqlite", new Error("secret")),
      new Deno.errors.NotFound("secret"),
      new HTTPException(500, { message: "secret" }),
      new DOMException("secret", "AbortError"),
      "secret",
      null,
      { status: 200, message: "secret" },
    ]
  ) {
    const body = await told(error);
    assertEquals([body.status, body.type, body.param], [500, "server_error", null]);
    assert(!JSON.stringify(body).includes("secret"), String(error));
  }
});

Deno.test("an error's cause stays with it for the log, its headers go to the client", async () => {
  const cause = new DiskFullError("/srv/data", 1, 0);
  assertEquals(toHttpError(cause).cause, cause);
  const { headers } = await told(new HttpError(405, "no", { headers: { Allow: "GET" } }));
  assertEquals(headers.get("Allow"), "GET");
  assertEquals(headers.get("Content-Type"), "application/json");
});
