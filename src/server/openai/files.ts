/**
 * Uploaded datasets and shape files, as the OpenAI API has files.
 *
 * @module
 */
import { createRoute, z } from "@hono/zod-openapi";
import type { App } from "../http/app_env.ts";
import { readForm } from "../http/form.ts";
import { HttpError } from "../http/http_error.ts";
import { json, otherwise, wholeNumberOr } from "../schemas.ts";
import type { Service } from "../service.ts";
import { isAllowed } from "../auth/tokens.ts";
import type { Upload } from "../uploads.ts";
import { pageAfter } from "./paging.ts";
import { resultFile } from "./step_metrics.ts";
import { PURPOSES, UploadContent } from "./upload_content.ts";

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
  summary: "Upload a dataset of JSON Lines, or a shape file",
  description:
    "Its id then stands for it in recipes: data.train and data.heldOut, or student.shape and student.shapes.widths.",
  tags: ["files"],
  request: {
    body: {
      required: true,
      content: {
        "multipart/form-data": {
          // No zod schema: checking by one would read the whole form into memory.
          schema: {
            type: "object",
            properties: {
              file: { type: "string", format: "binary" },
              purpose: {
                type: "string",
                description: "fine-tune for a dataset, shape for a shape file",
                example: "fine-tune",
              },
            },
            required: ["file", "purpose"],
          },
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

/** Adds the routes. */
export function addFileRoutes(app: App, service: Service): void {
  const { uploads, store } = service;

  // The form around a file takes some bytes too.
  const mostBytes = uploads.limits.fileBytes + (1 << 16);

  app.openapi(upload, async (c) => {
    const kept = await uploads.add(c.get("identity")!.name, async (write) => {
      let filename: string | undefined;
      const checked = new UploadContent();
      const fields = await readForm(c.req.raw, mostBytes, async (file) => {
        if (file.field !== "file") throw noFile();
        filename = file.filename.slice(0, 255);
        await write(checked.of(file.content));
      });
      if (filename === undefined) throw noFile();
      const purpose = fields.get("purpose");
      const expected = PURPOSES[checked.kind];
      if (purpose !== expected) {
        throw new HttpError(400, `purpose must be ${expected} for ${checked.kind}`, { param: "purpose" });
      }
      return { filename, purpose };
    });
    return c.json(view(kept), 200);
  });

  app.openapi(list, async (c) => {
    const { after, limit, purpose } = c.req.valid("query");
    const all = (await uploads.list()).filter((file) => purpose === undefined || file.purpose === purpose);
    const page = pageAfter(all, { after, limit }, ({ id }) => id);
    return c.json({ object: "list" as const, ...page, data: page.data.map(view) }, 200);
  });

  app.openapi(get, async (c) => {
    const { id } = c.req.valid("param");
    return c.json(view(await resultFile(store, id) ?? await find(service, id)), 200);
  });

  app.openapi(content, async (c) => {
    const { id } = c.req.valid("param");
    const result = await resultFile(store, id);
    if (result) return download(result.content, result, "text/csv; charset=utf-8");
    const file = await find(service, id);
    const { readable } = await Deno.open(file.path, { read: true });
    return download(readable, { ...file, filename: "content.jsonl" }, "application/jsonl");
  });

  app.openapi(remove, async (c) => {
    const { id } = c.req.valid("param");
    if (await resultFile(store, id)) {
      throw new HttpError(400, "a result file belongs to its run and is removed with it", { param: "id" });
    }
    const file = await find(service, id);
    const identity = c.get("identity")!;
    if (!isAllowed(identity, "admin") && file.owner !== identity.name) {
      throw new HttpError(403, "this file belongs to someone else; only an administrator may remove it", {
        code: "owner",
      });
    }
    await uploads.remove(file);
    return c.json({ id: file.id, object: "file" as const, deleted: true as const }, 200);
  });
}

function download(
  body: BodyInit,
  { bytes, filename }: Pick<Upload, "bytes" | "filename">,
  type: string,
): Response {
  return new Response(body, {
    headers: {
      "Content-Type": type,
      "Content-Length": String(bytes),
      "Content-Disposition": `attachment; filename="${filename}"`,
    },
  });
}

async function find({ uploads }: Service, id: string): Promise<Upload> {
  const file = await uploads.get(id);
  if (!file) throw new HttpError(404, `there is no file "${id}"`, { code: "unknown_file" });
  return file;
}

function view({ id, bytes, createdAt, filename, purpose, sha256 }: Omit<Upload, "path">) {
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

function noFile(): HttpError {
  return new HttpError(400, "the field file must be a file", { param: "file" });
}
