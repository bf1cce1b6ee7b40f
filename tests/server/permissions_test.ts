/** What a run may not do, proven with plugins that try. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { createApp } from "../../src/server/app.ts";
import { Service } from "../../src/server/service.ts";
import { withTiny } from "../distill/tiny_model.ts";
import { defaults, until } from "./harness.ts";

/** What each plugin tries while its term is traced, and how Deno names what is missing. */
const ATTEMPTS: Readonly<Record<string, readonly [code: string, refusal: string]>> = {
  "reads-outside": ['Deno.readTextFileSync("/etc/hostname")', 'read access to "/etc/hostname"'],
  "writes-outside": ['Deno.writeTextFileSync("/tmp/limbeck-was-here", "x")', "write access"],
  "opens-a-socket": ["Deno.listen({ port: 0 })", "net access"],
  "starts-a-process": ['new Deno.Command("/bin/true").outputSync()', 'run access to "/bin/true"'],
  "reads-the-environment": ['Deno.env.get("HOME")', 'env access to "HOME"'],
  "starts-a-worker": [
    'new Worker("data:text/javascript,1", { type: "module" })',
    "Workers may not be started",
  ],
  "reads-in-a-promise": ['void Deno.readTextFile("/etc/hostname")', 'read access to "/etc/hostname"'],
  "loads-a-library": ['Deno.dlopen("/lib/x86_64-linux-gnu/libc.so.6", {})', "ffi access"],
};

Deno.test("a run that tries what it may not is refused, and its event says so", () =>
  withTiny(async ({ folder }) => {
    await Deno.mkdir(`${folder}/models`);
    await Deno.rename(`${folder}/teacher`, `${folder}/models/tiny`);
    await Deno.mkdir(`${folder}/datasets`);
    await Deno.rename(`${folder}/train.jsonl`, `${folder}/datasets/rows.jsonl`);
    const contract = new URL("../../src/registry/contract.ts", import.meta.url).href;
    const plugins = Object.entries(ATTEMPTS).map(([name, [code]]) =>
      `defineDivergence({
      id: "mallory/${name}", version: "1.0.0", contract: 1, options: z.strictObject({}),
      // Where it is only looked at, it behaves.
      term: ({ logP, logQ }) => { if (Deno.args.length === 0 && !Deno.mainModule.includes("test")) ${code}; return exp(logP).mul(logP.sub(logQ)); },
    })`
    );
    const path = `${folder}/plugin.ts`;
    await Deno.writeTextFile(
      path,
      `import { defineDivergence, exp } from ${JSON.stringify(contract)};\nimport { z } from "zod";\n` +
        `export default [${plugins.join(", ")}];\n`,
    );
    const service = await Service.start({
      ...defaults(folder),
      plugins: [{ path, load: () => import(`file://${path}`) }],
      entry: new URL("../../src/runs/child/inside/train_entry.ts", import.meta.url).href,
    });
    try {
      const app = createApp(service);
      const ids = new Map<string, string>();
      for (const name of Object.keys(ATTEMPTS)) {
        const response = await app.request("/v1/runs", {
          method: "POST",
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify({
            recipe: {
              teacher: { model: "tiny" },
              student: { model: "teacher" },
              data: { train: "rows.jsonl", contextLength: 32 },
              objective: [{ loss: `mallory/${name}` }],
              train: { steps: 1, tokensPerMicroBatch: 64, warmup: 0 },
              samples: { tokens: 0 },
            },
          }),
        });
        const told = await response.json();
        assertEquals(response.status, 202, JSON.stringify(told));
        ids.set(name, told.id);
      }
      for (const [name, id] of ids) {
        await until(service, id, "failed", "succeeded");
        const [event] = await service.store.events(id, { types: ["error"] });
        assert(event?.type === "error", name);
        assertEquals(event.code, "not_permitted", `${name}: ${event.message}`);
        assertStringIncludes(event.message, ATTEMPTS[name]![1]);
      }
      await Deno.stat("/tmp/limbeck-was-here").then(() => assert(false, "it was written"), () => {});
    } finally {
      await service.close(2);
    }
  }));
