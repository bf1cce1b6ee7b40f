/** The stock client of the OpenAI API drives the service, with nothing but another base URL. */
// @ts-types="../../types/std_assert.d.ts"
import {
  assert,
  assertEquals,
  assertGreater,
  assertNotEquals,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import OpenAI, { toFile } from "npm:openai@7.57.0";
import { withTiny, writeTinyModel } from "../distill/tiny_model.ts";
import { Service } from "../../src/server/service.ts";
import { listen } from "../../src/server/listen.ts";
import { newToken, TokenList } from "../../src/server/auth/tokens.ts";
import { defaults, fakeNamed, until, untilIdle, withListening } from "./harness.ts";

/** Losses of the fake trainer. */
const losses = Array.from({ length: 13 }, (_, i) => [i + 1, 3 / (i + 1)]);

const JOB = {
  model: "model",
  training_file: "train.jsonl",
  seed: 7,
  suffix: "mine",
  metadata: { purpose: "test" },
};

/** From an entry that is none, no list begins again: whoever pages by itself would go round for ever. */
async function refusesAfter(list: () => PromiseLike<unknown>): Promise<void> {
  const error = await assertRejects(async () => await list(), OpenAI.BadRequestError);
  assertEquals(error.param, "after");
}

function clientOf(url: string, apiKey = "none"): OpenAI {
  return new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
}

Deno.test("openai: files are uploaded, listed, read and removed", () =>
  withListening(async ({ url }) => {
    const client = clientOf(url);
    const text = '{"text":"once upon a time"}\n{"prompt":"a","completion":"b"}\n';
    const file = await client.files.create({
      file: await toFile(new Blob([text]), "rows.jsonl"),
      purpose: "fine-tune",
    });
    assertEquals([file.object, file.bytes, file.filename, file.status], [
      "file",
      text.length,
      "rows.jsonl",
      "processed",
    ]);
    assertEquals((await client.files.retrieve(file.id)).id, file.id);
    assertEquals(await (await client.files.content(file.id)).text(), text);
    const second = await client.files.create({
      file: await toFile(new Blob([text]), "b.jsonl"),
      purpose: "fine-tune",
    });
    const ids: string[] = [];
    for await (const each of client.files.list({ limit: 1 })) ids.push(each.id);
    assertEquals(ids.toSorted(), [file.id, second.id].toSorted(), "paged by itself");
    await refusesAfter(() => client.files.list({ after: "file-000000000000000000000000" }));
    assertEquals((await client.files.delete(file.id)).deleted, true);
    await assertRejects(() => client.files.retrieve(file.id), OpenAI.NotFoundError);
    const bad = await toFile(new Blob(["{]\n"]), "bad.jsonl");
    const error = await assertRejects(
      () => client.files.create({ file: bad, purpose: "fine-tune" }),
      OpenAI.BadRequestError,
    );
    assertStringIncludes(error.message, "line 1 is not JSON");
  }));

Deno.test("openai: jobs are created, listed, watched, paused, resumed and cancelled", () =>
  withListening(async ({ url, service, folder }) => {
    const client = clientOf(url);
    const jobs = client.fineTuning.jobs;
    // About 12,700 tokens: 13 steps an epoch.
    await Deno.writeTextFile(`${folder}/datasets/long.jsonl`, '{"text":"once upon a time"}\n'.repeat(1820));
    const job = await jobs.create({ ...JOB, training_file: "long.jsonl", hyperparameters: { n_epochs: 1 } });
    assertEquals([job.object, job.status, job.model, job.seed], ["fine_tuning.job", "queued", "model", 7]);
    assertEquals(job.metadata, { purpose: "test", suffix: "mine" });
    await until(service, job.id, "succeeded");
    const done = await jobs.retrieve(job.id);
    assertEquals([done.status, done.fine_tuned_model], ["succeeded", `run:${job.id}`]);
    assertGreater(done.finished_at!, 0);
    const hyperparameters = {
      n_epochs: "auto" as const,
      batch_size: 1,
      learning_rate_multiplier: "auto" as const,
    };
    assertEquals(done.method, { type: "supervised", supervised: { hyperparameters } });
    assertEquals([job.trained_tokens, job.result_files], [null, []]);
    assertEquals(done.trained_tokens, 13 * 100, "a hundred a step");
    const [result] = done.result_files;
    const { bytes, purpose, filename } = await client.files.retrieve(result!);
    assertEquals([purpose, filename], ["fine-tune-results", "step_metrics.csv"]);
    const csv = await (await client.files.content(result!)).text();
    assertEquals(csv.length, bytes);
    const lines = csv.split("\n");
    assertEquals(lines[0], "step,train_loss,full_valid_loss,learning_rate,gradient_norm,trained_tokens");
    assertEquals(lines[1], "0,,3,,,", "measured before the first step");
    assertEquals(lines.slice(2, -1).map((line) => line.split(",").slice(0, 2).map(Number)), losses);
    await assertRejects(() => client.files.delete(result!), OpenAI.BadRequestError);

    const events = [];
    for await (const event of jobs.listEvents(job.id, { limit: 3 })) events.push(event);
    const stored = await service.store.events(job.id);
    assertEquals(events.length, stored.length, "all pages");
    assertEquals(
      events.map((event) => event.id),
      stored.map(({ seq }) => `ftevent-${job.id}-${seq}`).toReversed(),
    );
    assert(events.some((event) => event.type === "metrics"));
    const checkpoints = [];
    for await (const checkpoint of jobs.checkpoints.list(job.id, { limit: 1 })) checkpoints.push(checkpoint);
    const steps = checkpoints.map((checkpoint) => checkpoint.step_number);
    assertEquals(steps, [10, 5]);
    assertGreater(checkpoints[0]!.metrics.train_loss!, 0);
    for (const { fine_tuned_model_checkpoint: name } of checkpoints) {
      assertEquals((await client.models.retrieve(name)).id, name);
    }
    for (
      const name of [`run:${job.id}:step-7`, `run:${job.id}:step-`, `run:${job.id}:5`, "run:none:step-5"]
    ) {
      await assertRejects(() => client.models.retrieve(name), OpenAI.NotFoundError, undefined, name);
    }
    const checkpointFolder = `${(await service.store.get(job.id))!.folder}/checkpoints/step-000005`;
    await Deno.remove(checkpointFolder, { recursive: true });
    await assertRejects(() => client.models.retrieve(`run:${job.id}:step-5`), OpenAI.NotFoundError);
    assertEquals((await jobs.checkpoints.list(job.id)).data.length, 1, "what is gone is told of no more");
    await refusesAfter(() => jobs.checkpoints.list(job.id, { after: `ftckpt-${job.id}-5` }));
    for (const after of ["ftevent-none-1", `ftevent-${job.id}-0`, `ftevent-${job.id}-99999`]) {
      await refusesAfter(() => jobs.listEvents(job.id, { after }));
    }
    await assertRejects(async () => await jobs.list({ after: "none" }), OpenAI.NotFoundError);

    // The fake trainer is told to be slow through a recipe, which jobs do not have.
    const response = await fetch(`${url}/v1/runs`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ recipe: fakeNamed({ pace: 20 }, 500) }),
    });
    const { id } = await response.json();
    await until(service, id, "running");
    await jobs.pause(id);
    await until(service, id, "paused");
    assertEquals((await jobs.resume(id)).status, "queued");
    await until(service, id, "running");
    await jobs.cancel(id);
    await until(service, id, "cancelled");
    assertEquals((await jobs.list()).data.map((each) => each.status), ["cancelled", "succeeded"]);
    const conflict = await assertRejects(() => jobs.pause(id), OpenAI.ConflictError);
    assertStringIncludes(conflict.message, "is cancelled and cannot be paused");

    const found = async (metadata: Record<string, string>) =>
      (await jobs.list({ metadata })).data.map((each) => each.id);
    assertEquals(await found({ purpose: "test" }), [job.id]);
    assertEquals(await found({ purpose: "test", suffix: "other" }), []);
    assertEquals(await found({}), [id, job.id]);
    await assertRejects(
      async () => await jobs.list({}, { query: { metadata: "null" } }),
      OpenAI.BadRequestError,
      "metadata[name]=value",
    );

    await assertRejects(() => client.models.delete("model"), OpenAI.PermissionDeniedError);
    await assertRejects(() => client.models.delete(`run:${job.id}:step-10`), OpenAI.BadRequestError);
    assertEquals(await client.models.delete(`run:${job.id}`), {
      id: `run:${job.id}`,
      object: "model",
      deleted: true,
    });
    await assertRejects(() => client.models.retrieve(`run:${job.id}`), OpenAI.NotFoundError);
    await assertRejects(() => client.models.delete(`run:${job.id}`), OpenAI.NotFoundError);
  }));

Deno.test("openai: a job that is sent again with its key makes no second one", () =>
  withListening(async ({ url, service }) => {
    const { jobs } = clientOf(url).fineTuning;
    const create = (change: object = {}, key = "one") =>
      jobs.create({ ...JOB, ...change }, { headers: { "Idempotency-Key": key } });
    const first = await create();
    assertEquals((await create()).id, first.id);
    await assertRejects(() => create({ seed: 8 }), OpenAI.UnprocessableEntityError);
    assertNotEquals((await create({}, "two")).id, first.id);
    const racing = await Promise.allSettled([create({}, "three"), create({}, "three")]);
    const made = racing.flatMap((each) => each.status === "fulfilled" ? [each.value.id] : []);
    assertEquals(new Set(made).size, 1);
    for (const each of racing) {
      assert(each.status === "fulfilled" || each.reason instanceof OpenAI.ConflictError);
    }
    assertEquals((await service.store.list()).data.length, 3);
  }));

Deno.test("openai: what is wrong with a job is told with its field", () =>
  withListening(async ({ url }) => {
    const client = clientOf(url);
    const refused = async (change: object, param: string | null, text: string) => {
      const error = await assertRejects(
        () => client.fineTuning.jobs.create({ ...JOB, ...change }),
        OpenAI.BadRequestError,
      );
      assertEquals(error.param, param);
      assertStringIncludes(error.message, text);
    };
    await refused({ training_file: "file-000000000000000000000000" }, "training_file", "there is no file");
    await refused({ model: "gpt-4o" }, "teacher.model", "has no model");
    await refused({ hyperparameters: { n_epochs: -1 } }, "hyperparameters.n_epochs", "");
    await refused({ hyperparameters: { beta: 0.1 } }, "hyperparameters", '"beta"');
    const supervised = { hyperparameters: { n_epoch: 1 } };
    await refused(
      { method: { type: "supervised", supervised } },
      "method.supervised.hyperparameters",
      '"n_epoch"',
    );
    await refused({ method: { type: "dpo" } }, "method.type", "supervised");
    await refused({ integrations: [{ type: "wandb" }] }, "integrations", "no integrations");
    await assertRejects(() => client.fineTuning.jobs.retrieve("none"), OpenAI.NotFoundError);
  }));

Deno.test("openai: a real run is distilled from an upload, and its model writes and talks", () =>
  withTiny(async ({ folder, train }) => {
    await Deno.mkdir(`${folder}/models`);
    await writeTinyModel(`${folder}/models/tiny`, { contextLength: 64 });
    const config = JSON.parse(await Deno.readTextFile(`${folder}/models/tiny/tokenizer_config.json`));
    config.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:";
    await Deno.writeTextFile(`${folder}/models/tiny/tokenizer_config.json`, JSON.stringify(config));
    const { secret, line } = newToken("ada", "submit");
    const service = await Service.start({
      ...defaults(folder),
      tokens: TokenList.parse(line, "tokens"),
      datasets: [],
      entry: new URL("../../src/runs/child/inside/train_entry.ts", import.meta.url).href,
    });
    const listening = listen(service, { host: "127.0.0.1", port: 0 });
    try {
      const url = `http://127.0.0.1:${listening.port}`;
      await assertRejects(() => clientOf(url, "wrong").models.list(), OpenAI.AuthenticationError);
      const client = clientOf(url, secret);
      const rows = await toFile(new Blob([await Deno.readTextFile(train)]), "rows.jsonl");
      const file = await client.files.create({ file: rows, purpose: "fine-tune" });
      const method = {
        type: "distillation",
        distillation: {
          teacher: "tiny",
          data: { contextLength: 32 },
          // Steps so large that the model writes something else after each.
          train: { steps: 2, tokensPerMicroBatch: 64, warmup: 0, learningRate: 0.5, checkpointEvery: 1 },
        },
      };
      const job = await client.fineTuning.jobs.create(
        { model: "tiny", training_file: file.id, method } as unknown as OpenAI.FineTuning.JobCreateParams,
      );
      await until(service, job.id, "succeeded", "failed");
      // Its report is written when it has come to rest.
      await untilIdle(service);
      const done = await client.fineTuning.jobs.retrieve(job.id);
      assertEquals([done.status, done.error], ["succeeded", null]);
      const model = done.fine_tuned_model!;
      const { data } = await (await fetch(`${url}/v1/runs/${job.id}/artifacts`, {
        headers: { Authorization: `Bearer ${secret}` },
      })).json();
      const names: string[] = data.map(({ name }: { name: string }) => name);
      for (const name of ["adapter/adapter_config.json", "report.html", "merged/config.json"]) {
        assert(names.includes(name), `${name} of ${names}`);
      }
      for (const artifact of data) {
        const headers = { Authorization: `Bearer ${secret}` };
        const bytes = await (await fetch(url + artifact.url, { headers })).bytes();
        assertEquals(bytes.length, artifact.bytes, artifact.name);
        const text = new TextDecoder("latin1").decode(bytes);
        assert(!text.includes(folder), `${artifact.name} has a path of the machine in it`);
      }
      const models = [];
      for await (const each of client.models.list()) models.push(each.id);
      assertEquals(models, ["tiny", model]);

      const asked = { model, prompt: "the cat", max_tokens: 12, seed: 3, temperature: 1 };
      const whole = await client.completions.create(asked);
      assertEquals(whole.usage?.completion_tokens === 12, whole.choices[0]!.finish_reason === "length");
      let text = "";
      for await (const chunk of await client.completions.create({ ...asked, stream: true })) {
        text += chunk.choices[0]?.text ?? "";
      }
      assertEquals(text, whole.choices[0]!.text);
      const kept = await client.fineTuning.jobs.checkpoints.list(job.id);
      const after: string[] = [];
      for (const { fine_tuned_model_checkpoint: name } of kept.data) {
        const written = await client.completions.create({ ...asked, model: name, temperature: 0 });
        after.push(written.choices[0]!.text);
      }
      assertEquals(kept.data.map((checkpoint) => checkpoint.step_number), [2, 1]);
      assertNotEquals(after[0], after[1], "each writes as it did after its step");
      await assertRejects(
        () => client.completions.create({ ...asked, model: `${model}:step-3` }),
        OpenAI.NotFoundError,
        "only of 1, 2",
      );
      assertEquals((await client.fineTuning.jobs.retrieve(job.id)).method as unknown, {
        type: "distillation",
        distillation: {
          teacher: "tiny",
          objective: [{ loss: "cross-entropy", weight: 0.5 }, { loss: "forward-kl", weight: 0.5 }],
          hyperparameters: { n_epochs: "auto", batch_size: 1, learning_rate_multiplier: "auto" },
        },
      });
      const messages = [{ role: "user" as const, content: "hello" }];
      const chat = await client.chat.completions.create({ model, messages, max_tokens: 8, seed: 1 });
      assertEquals(chat.choices[0]!.message.role, "assistant");
      let said = "";
      let usage = 0;
      const stream = await client.chat.completions.create({
        ...{ model, messages, max_tokens: 8, seed: 1, stream: true },
        stream_options: { include_usage: true },
      });
      for await (const chunk of stream) {
        said += chunk.choices[0]?.delta.content ?? "";
        usage = chunk.usage?.total_tokens ?? usage;
      }
      assertEquals([said, usage], [chat.choices[0]!.message.content, chat.usage!.total_tokens]);
      await assertRejects(
        () => client.completions.create({ model: "none", prompt: "x" }),
        OpenAI.NotFoundError,
      );
      await assertRejects(
        () => client.completions.create({ ...asked, n: 2 }),
        OpenAI.BadRequestError,
      );
      const long = await assertRejects(
        () => client.completions.create({ ...asked, prompt: "cat ".repeat(200) }),
        OpenAI.BadRequestError,
      );
      assertStringIncludes(long.message, "tokens");
    } finally {
      await listening.close(5);
    }
  }));
