/**
 * Uploaded datasets, as the OpenAI API has files.
 *
 * @module
 */
import { createRoute, z } from "@hono/zod-openapi";
import type { App } from "../http/app_env.ts";
import { HttpError } from "../http/http_error.ts";
import { json, otherwise, wholeNumberOr } from "../schemas.ts";
import type { Service } from "../service.ts";
import { isAllowed } from "../auth/tokens.ts";
import type { Upload } from "../uploads.ts";

const fileSchema = z.object({
  id: z.string(),
  object: z.literal("file"),
  bytes: z.number().int(),
  created_at: z.number().int(),
  filename: z.string(),
  purpose: z.string(),
  status: z.literal("processed"),
  sha256: z.string(),
}).openapi("File");

const fileId = z.object({
  id: z.string().min(1).max(64).openapi({ example: "file-0123456789abcdef01234567" }),
});

const upload = createRoute({
  method: "post",
  path: "/v1/files",
  operationId: "uploadFile",
  summary: "Upload a dataset of JSON Lines",
  description: "Its id then stands for it in recipes: data.train and data.heldOut.",
  tags: ["files"],
  request: {
    body: {
      required: true,
      content: {
        "multipart/form-data": {
          schema: z.object({
            file: z.any().openapi({ type: "string", format: "binary" }),
            purpose: z.string().openapi({ description: "fine-tune", example: "fine-tune" }),
          }),
        },
      },
    },
  },
  responses: { 200: json(fileSchema, "The file"), ...otherwise },
});

const list = createRoute({
  method: "get",
  path: "/v1/files",
  operationId: "listFiles",
  summary: "List uploaded files, the newest first",
  tags: ["files"],
  request: {
    query: z.object({
      after: z.string().min(1).max(64).optional(),
      limit: wholeNumberOr(100, 1, 1000),
      purpose: z.string().max(64).optional(),
    }),
  },
  responses: {
    200: json(
      z.object({ object: z.literal("list"), data: z.array(fileSchema), has_more: z.boolean() }),
      "Files",
    ),
    ...otherwise,
  },
});

const get = createRoute({
  method: "get",
  path: "/v1/files/{id}",
  operationId: "getFile",
  summary: "Show a file",
  tags: ["files"],
  request: { params: fileId },
  responses: { 200: json(fileSchema, "The file"), ...otherwise },
});

const content = createRoute({
  method: "get",
  path: "/v1/files/{id}/content",
  operationId: "downloadFile",
  summary: "Download a file",
  tags: ["files"],
  request: { params: fileId },
  responses: {
    200: {
      description: "What was uploaded, or the numbers of a run's steps",
      content: { "application/jsonl": { schema: z.string() }, "text/csv": { schema: z.string() } },
    },
    ...otherwise,
  },
});

const remove = createRoute({
  method: "delete",
  path: "/v1/files/{id}",
  operationId: "removeFile",
  summary: "Remove a file; runs that use it cannot be resumed",
  tags: ["files"],
  request: { params: fileId },
  responses: {
    200: json(
      z.object({ id: z.string(), object: z.literal("file"), deleted: z.literal(true) }),
      "It is gone",
    ),
    ...otherwise,
  },
});

/** Lines of an upload that are looked at at once; a run looks at all of them. */
const LINES_CHECKED = 1000;

/** Adds the routes. */
export function addFileRoutes(app: App, service: Service): void {
  const { uploads } = service;

  app.openapi(upload, async (c) => {
    let form: FormData;
    try {
      form = await c.req.formData();
    } catch (cause) {
      if (cause instanceof HttpError) throw cause;
      throw new HttpError(400, "the body is no multipart/form-data", { code: "bad_request", cause });
    }
    const [file, purpose] = [form.get("file"), form.get("purpose")];
    if (!(file instanceof File)) throw new HttpError(400, "the field file must be a file", { param: "file" });
    if (purpose !== "fine-tune") {
      throw new HttpError(400, "purpose must be fine-tune: datasets are all that can be uploaded", {
        param: "purpose",
      });
    }
    checkLines(await file.slice(0, 1 << 22).text(), file.size <= 1 << 22);
    const { name } = c.get("identity")!;
    const kept = await uploads.add(
      file.stream(),
      { filename: file.name.slice(0, 255), purpose, owner: name },
      service.uploadBytes,
    );
    return c.json(view(kept), 200);
  });

  app.openapi(list, async (c) => {
    const { after, limit, purpose } = c.req.valid("query");
    const all = (await uploads.list()).filter((file) => purpose === undefined || file.purpose === purpose);
    const first = after === undefined ? 0 : all.findIndex(({ id }) => id === after) + 1;
    const data = all.slice(first, first + limit).map(view);
    return c.json({ object: "list" as const, data, has_more: all.length > first + limit }, 200);
  });

  app.openapi(get, async (c) => c.json(view(await find(service, c.req.valid("param").id)), 200));

  app.openapi(content, async (c) => {
    const { path, bytes } = await find(service, c.req.valid("param").id);
    const { readable } = await Deno.open(path, { read: true });
    return new Response(readable, {
      headers: {
        "Content-Type": "application/jsonl",
        "Content-Length": String(bytes),
        "Content-Disposition": 'attachment; filename="content.jsonl"',
      },
    });
  });

  app.openapi(remove, async (c) => {
    const { id, owner } = await find(service, c.req.valid("param").id);
    const identity = c.get("identity")!;
    if (!isAllowed(identity, "admin") && owner !== identity.name) {
      throw new HttpError(403, "this file belongs to someone else; only an administrator may remove it", {
        code: "owner",
      });
    }
    await uploads.remove(id);
    return c.json({ id, object: "file" as const, deleted: true as const }, 200);
  });
}

async function find({ uploads }: Service, id: string): Promise<Upload> {
  const file = await uploads.get(id);
  if (!file) throw new HttpError(404, `there is no file "${id}"`, { code: "unknown_file" });
  return file;
}

function view({ id, bytes, createdAt, filename, purpose, sha256 }: Upload) {
  return {
    id,
    object: "file" as const,
    bytes,
    created_at: Math.floor(Date.parse(createdAt) / 1000),
    filename,
    purpose,
    status: "processed" as const,
    sha256,
  };
}

/** Refuses at once what is no JSON Lines at all. */
function checkLines(text: string, isWhole: boolean): void {
  const lines = text.split("\n");
  // The last one may be cut.
  if (!isWhole) lines.pop();
  let rows = 0;
  for (const [i, line] of lines.slice(0, LINES_CHECKED).entries()) {
    if (line.trim() === "") continue;
    rows++;
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch (cause) {
      throw new HttpError(400, `line ${i + 1} is not JSON: ${(cause as Error).message}`, {
        param: "file",
        cause,
      });
    }
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw new HttpError(
        400,
        `line ${i + 1} is no object; a row is {"text"}, {"prompt", "completion"} or {"messages"}`,
        {
          param: "file",
        },
      );
    }
  }
  if (rows === 0) throw new HttpError(400, "the file has no rows", { param: "file" });
}
