/**
 * The HTTP service as a plain fetch handler.
 *
 * @module
 */
import { OpenAPIHono } from "@hono/zod-openapi";
import type { MiddlewareHandler } from "hono";
import { bodyLimit } from "hono/body-limit";
import { routePath } from "hono/route";
import project from "../../deno.json" with { type: "json" };
import { recipeJsonSchema } from "../distill/recipe/problems.ts";
import { taskJsonSchemas } from "../runs/task/task.ts";
import { identify, needs } from "./http/access.ts";
import type { App, AppEnv } from "./http/app_env.ts";
import { secureHeaders } from "./http/headers.ts";
import { errorResponse, HttpError, toHttpError } from "./http/http_error.ts";
import { checkHost, checkOrigin } from "./http/origin.ts";
import { rateLimit } from "./http/rate_limit.ts";
import { logRequests, requestId } from "./http/request_log.ts";
import { addArtifactRoutes } from "./routes/artifacts.ts";
import { addCatalogueRoutes } from "./routes/catalogue.ts";
import { addCompletionRoutes } from "./openai/completions.ts";
import { addHiddenStateRoutes } from "./openai/hidden_states.ts";
import { addEventRoutes } from "./routes/events.ts";
import { addFileRoutes } from "./openai/files.ts";
import { addFineTuningRoutes } from "./openai/fine_tuning.ts";
import { addInspectionRoutes } from "./routes/inspect.ts";
import { addPageRoutes } from "./routes/page.ts";
import { addRunRoutes } from "./routes/runs.ts";
import { addShapeRoutes } from "./routes/shapes.ts";
import { addTabRoutes } from "./routes/tab.ts";
import { addSystemRoutes } from "./routes/system.ts";
import type { Service } from "./service.ts";

/**
 * Makes the app of a service. Its `fetch` is all that a host needs.
 *
 * @example
 * ```ts ignore
 * const service = await Service.start({ dataFolder: "limbeck-data" });
 * export default createApp(service);
 * ```
 */
export function createApp(service: Service): App {
  const app: App = new OpenAPIHono<AppEnv>({
    defaultHook(result) {
      if (!result.success) throw invalid(result.error.issues, result.target);
    },
  });

  app.use(requestId(), secureHeaders(service.origins), logRequests(service.log));
  app.use(checkHost(service.hosts), checkOrigin(service.origins), identify(service.tokens, service.sessions));
  const limited = rateLimit(service.rate);
  // Whoever looks after the service must not be kept out by a flood of others.
  app.use((c, next) => /^\/(healthz|readyz)$/.test(c.req.path) ? next() : limited(c, next));
  app.use("/v1/*", async (c, next) => {
    await (c.req.method === "GET" || c.req.method === "HEAD" ? needs("read") : needs("submit"))(c, next);
  });
  app.use("/metrics", needs("read"));
  // Only what has come so far: nobody else can make the numbers grow.
  app.use(countRequests(service));
  const small = sizeLimit(service.bodyBytes);
  // A file is not held in memory; whoever reads it counts its bytes.
  app.use((c, next) => c.req.path === "/v1/files" ? next() : small(c, next));
  app.use(requireJson);

  addInspectionRoutes(app, service);
  addRunRoutes(app, service);
  addEventRoutes(app, service);
  addShapeRoutes(app, service);
  addArtifactRoutes(app, service);
  addCatalogueRoutes(app, service);
  addFileRoutes(app, service);
  addFineTuningRoutes(app, service);
  addCompletionRoutes(app, service);
  addHiddenStateRoutes(app, service);
  addSystemRoutes(app, service);
  addPageRoutes(app);
  addTabRoutes(app, service);
  addDocument(app);

  app.notFound((c) => {
    const allowed = methodsOf(app, c.req.path);
    const error = allowed.length > 0
      ? new HttpError(405, `${c.req.method} is not possible here; ${allowed.join(", ")} is`, {
        code: "method",
        headers: { Allow: allowed.join(", ") },
      })
      : new HttpError(404, "there is nothing here; GET /openapi.json describes what there is", {
        code: "unknown_route",
      });
    return errorResponse(error);
  });
  app.onError((error, c) => {
    const told = toHttpError(error, service.catalogue.hide);
    if (told.status === 500) {
      service.log({
        level: "error",
        message: String(error),
        stack: error.stack,
        request: c.get("requestId"),
      });
    }
    return errorResponse(told);
  });
  return app;
}

function sizeLimit(maxSize: number): MiddlewareHandler<AppEnv> {
  return bodyLimit({
    maxSize,
    onError: () => {
      throw new HttpError(413, `a body may have at most ${maxSize} bytes`, { code: "too_large" });
    },
  });
}

/** Bodies that are sent must be JSON, unless a route takes something else: a form of another site could be sent without asking. */
const requireJson: MiddlewareHandler<AppEnv> = async function requireJson(c, next) {
  const type = c.req.header("Content-Type");
  const hasBody = type !== undefined || Number(c.req.header("Content-Length") ?? 0) > 0;
  const takesForms = c.req.path === "/v1/files";
  if (hasBody && !takesForms && !/^application\/json\s*(;|$)/i.test(type ?? "") && c.req.method !== "GET") {
    throw new HttpError(415, "send JSON, with Content-Type: application/json", { code: "content_type" });
  }
  await next();
};

/** Methods that are counted by their names. */
const METHODS: ReadonlySet<string> = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);

function countRequests({ counters }: Service): MiddlewareHandler<AppEnv> {
  return async function countRequests(c, next) {
    const begun = performance.now();
    await next();
    const route = routePath(c, -1);
    // A method may be any word, and each would be a number of its own for as long as the service lives.
    const method = METHODS.has(c.req.method) ? c.req.method : "other";
    counters.count("limbeck_requests_total", { method, route, status: String(c.res.status) });
    counters.count("limbeck_request_seconds_sum", { route }, (performance.now() - begun) / 1000);
  };
}

/** What is wrong with a request, by the first problem that its schema finds. */
function invalid(issues: readonly { path: PropertyKey[]; message: string }[], target: string): HttpError {
  const problems = issues.map(({ path, message }) => ({ path: path.map(String).join("."), message }));
  const where = target === "json" ? "" : `${target === "param" ? "path" : target} `;
  const text = problems.map(({ path, message }) => path ? `${where}${path}: ${message}` : message).join("\n");
  const [first] = problems;
  return new HttpError(400, text, {
    code: "bad_request",
    problems,
    ...(first?.path ? { param: first.path } : {}),
  });
}

/** Methods that there are for a path. */
function methodsOf(app: App, path: string): string[] {
  const found = ["GET", "POST", "DELETE"].flatMap((method) =>
    app.router.match(method, path)[0].flatMap(([[, route]]) =>
      route.method === method && route.path !== "/*" ? [{ method, path: route.path }] : []
    )
  );
  // /v1/runs/validate is no run, though the path of runs fits it.
  const exact = found.filter((route) => route.path === path);
  const methods = [...new Set((exact.length > 0 ? exact : found).map(({ method }) => method))];
  return methods.includes("GET") ? ["HEAD", ...methods] : methods;
}

function addDocument(app: App): void {
  app.openAPIRegistry.registerComponent("securitySchemes", "token", {
    type: "http",
    scheme: "bearer",
    description: "A token of the service; none is needed where it has no token file",
  });
  let text: string | undefined;
  app.get("/openapi.json", (c) => {
    text ??= JSON.stringify(withRecipe(app.getOpenAPI31Document({
      openapi: "3.1.0",
      info: {
        title: "Limbeck",
        version: project.version,
        description:
          "Distils, merges and cuts language models: takes runs, streams what they say, hands out what they made.",
        contact: { name: "Limbeck" },
        license: { name: "MIT", url: "https://opensource.org/license/mit" },
      },
      servers: [{ url: "/" }],
      security: [{ token: [] }, {}],
      tags: [
        { name: "runs", description: "Submitting runs and asking things of them" },
        { name: "events", description: "What runs say" },
        { name: "artifacts", description: "What runs made" },
        { name: "catalogue", description: "What a recipe may name" },
        { name: "try", description: "Writing text with a model" },
        { name: "files", description: "Uploaded datasets" },
        { name: "fine-tuning", description: "Runs under the names of the OpenAI API" },
        { name: "system", description: "The service itself" },
      ],
    })));
    return c.body(text, 200, { "Content-Type": "application/json" });
  });
}

/** Puts the schemas of recipes and tasks, which are written by their own rules, where the document speaks of them. */
function withRecipe(document: object): unknown {
  const of = (name: string) => ({ $ref: `#/components/schemas/${name}` });
  const tasks = Object.entries(taskJsonSchemas()).map(([name, schema]) => [taskName(name), schema] as const);
  const replaced = JSON.parse(JSON.stringify(document), (_, value) => {
    // Every operation is described, if only by its summary.
    if (value?.operationId) return { ...value, description: value.description ?? `${value.summary}.` };
    const { description } = value ?? {};
    if (value?.["x-schema"] === "Recipe") return { allOf: [of("Recipe")], description };
    if (value?.["x-schema"] !== "RunRecipe") return value;
    return { anyOf: ["Recipe", ...tasks.map(([name]) => name)].map(of), description };
  });
  for (const [name, schema] of [["Recipe", recipeJsonSchema()] as const, ...tasks]) {
    const { $schema: _, ...shown } = schema as { $schema?: string };
    replaced.components.schemas[name] = JSON.parse(JSON.stringify(shown), (_, value) => {
      if (!value?.prefixItems) return value;
      // Tools want `items` beside them.
      const { length } = value.prefixItems;
      return { ...value, items: value.prefixItems[0], minItems: length, maxItems: length };
    });
  }
  return replaced;
}

/** `MergeAdaptersTask` of `merge-adapters`. */
function taskName(task: string): string {
  return `${task.replace(/(?:^|-)([a-z])/g, (_, letter: string) => letter.toUpperCase())}Task`;
}
