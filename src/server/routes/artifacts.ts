/**
 * The files that runs made.
 *
 * @module
 */
import { createRoute, z } from "@hono/zod-openapi";
import type { Context } from "hono";
// @ts-types="../../../types/std_path.d.ts"
import { basename, join } from "@std/path";
import type { App } from "../http/app_env.ts";
import type { AppEnv } from "../http/app_env.ts";
import {
  FileHashes,
  hashBytes,
  listArtifacts,
  MEDIA_TYPES,
  mediaType,
  parseRange,
  readRange,
} from "../artifacts.ts";
import { HttpError } from "../http/http_error.ts";
import { json, otherwise, runId } from "../schemas.ts";
import type { Service } from "../service.ts";
import { find } from "./runs.ts";

const artifactSchema = z.object({
  name: z.string(),
  bytes: z.number().int(),
  modifiedAt: z.string().openapi({ format: "date-time" }),
  url: z.string(),
}).openapi("Artifact");

const list = createRoute({
  method: "get",
  path: "/v1/runs/{id}/artifacts",
  operationId: "listArtifacts",
  summary: "List the files that a run made",
  tags: ["artifacts"],
  request: { params: runId },
  responses: {
    200: json(z.object({ object: z.literal("list"), data: z.array(artifactSchema) }), "Files"),
    ...otherwise,
  },
});

const binary = { schema: z.string().openapi({ format: "binary" }) };
const content = Object.fromEntries(MEDIA_TYPES.map((type) => [type.split(";")[0]!, binary]));

const download = createRoute({
  method: "get",
  path: "/v1/runs/{id}/artifacts/{name}",
  operationId: "downloadArtifact",
  summary: "Download a file, or a range of it",
  description:
    "The name's slashes may be written as they are or as %2F. The ETag is the SHA-256 of what is sent. " +
    "An adapter's configuration names its base model as the service does, without its folder.",
  tags: ["artifacts"],
  request: {
    params: runId.extend({
      name: z.string().min(1).max(512).openapi({ example: "adapter/adapter_config.json" }),
    }),
    headers: z.object({
      range: z.string().optional().openapi({ example: "bytes=0-1023" }),
      "if-none-match": z.string().optional(),
      "if-range": z.string().optional(),
    }),
  },
  responses: {
    200: { description: "The file", content },
    206: { description: "A range of it", content },
    304: { description: "It has not changed" },
    ...otherwise,
  },
});

const REPORT_POLICY =
  "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; sandbox";

/** Adds the routes. */
export function addArtifactRoutes(app: App, service: Service): void {
  const hashes = new FileHashes();

  app.openapi(list, async (c) => {
    const { id, folder } = await find(service, c.req.valid("param").id);
    const artifacts = await listArtifacts(folder, service.catalogue.hide);
    const data = artifacts.map(({ shown: _, ...artifact }) => ({
      ...artifact,
      url: `/v1/runs/${id}/artifacts/${artifact.name.split("/").map(encodeURIComponent).join("/")}`,
    }));
    return c.json({ object: "list" as const, data }, 200);
  });

  const send = async (c: Context<AppEnv>, id: string, name: string): Promise<Response> => {
    const { folder } = await find(service, id);
    // Only what is listed can be had, so no name leads anywhere else.
    const artifacts = await listArtifacts(folder, service.catalogue.hide);
    const artifact = artifacts.find((artifact) => artifact.name === name);
    if (!artifact) {
      throw new HttpError(
        404,
        `the run has no file "${name}"; GET /v1/runs/${id}/artifacts lists what it has`,
        {
          code: "unknown_artifact",
        },
      );
    }
    const path = join(folder, name);
    const { shown } = artifact;
    const etag = `"${shown ? hashBytes(shown) : await hashes.of(path)}"`;
    const headers = new Headers({
      "ETag": etag,
      "Accept-Ranges": "bytes",
      "Content-Type": mediaType(name),
      "Cache-Control": "private, no-cache",
      "Content-Disposition": `${name === "report.html" ? "inline" : "attachment"}; filename="${
        safe(basename(name))
      }"`,
    });
    // A report brings its own styles, and is kept from everything else.
    if (name.endsWith(".html")) headers.set("Content-Security-Policy", REPORT_POLICY);
    const known = c.req.header("If-None-Match")?.split(",").map((tag) => tag.trim().replace(/^W\//, ""));
    if (known?.some((tag) => tag === etag || tag === "*")) {
      return new Response(null, { status: 304, headers });
    }
    const condition = c.req.header("If-Range");
    const range = condition === undefined || condition === etag
      ? parseRange(c.req.header("Range"), artifact.bytes)
      : undefined;
    if (range === null) {
      throw new HttpError(416, `the file has ${artifact.bytes} bytes`, {
        code: "range",
        headers: { "Content-Range": `bytes */${artifact.bytes}` },
      });
    }
    const { first, last } = range ?? { first: 0, last: artifact.bytes - 1 };
    headers.set("Content-Length", String(last - first + 1));
    if (range) headers.set("Content-Range", `bytes ${first}-${last}/${artifact.bytes}`);
    const body = c.req.method === "HEAD"
      ? null
      : shown
      ? shown.subarray(first, last + 1)
      : await readRange(path, first, last);
    return new Response(body, { status: range ? 206 : 200, headers });
  };

  app.openapi(download, (c) => {
    const { id, name } = c.req.valid("param");
    return send(c, id, name);
  });
  app.get("/v1/runs/:id/artifacts/:name{.+}", (c) => send(c, c.req.param("id"), c.req.param("name")));
}

/** A name that can stand in a header. */
function safe(name: string): string {
  return name.replace(/[^A-Za-z0-9._-]/g, "_");
}
