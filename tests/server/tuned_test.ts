/** What the service knows of its device's kernels, and what it lets nobody say. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertStringIncludes } from "@std/assert";
import { keepTuned, readTuned } from "../../src/runs/store/tuned_files.ts";
import { choicesOf } from "../../src/tune/tuned.ts";
import { tunedChoice, tunedDevice } from "../tune/tuned.ts";
import { fakeNamed, submit, until, withService } from "./harness.ts";

const GPU = tunedDevice("a fake GPU");

Deno.test("readyz counts what the service's GPU has chosen among kernels", () =>
  withService(async (test) => {
    const { folder } = test.service.store;
    await keepTuned(folder, GPU, [tunedChoice("p"), tunedChoice("q", { kernel: "a" })]);
    await keepTuned(folder, tunedDevice("another"), [tunedChoice("r")]);
    const { status, body } = await test.call("GET", "/readyz");
    assertEquals([status, body], [200, {
      status: "ok",
      gpu: "a fake GPU",
      kernels: { chosen: 2, others: 1, writing: 0 },
    }]);
  }));

Deno.test("runs of the service keep what their device has chosen; a recipe that names kernels is refused", () =>
  withService(async (test) => {
    const id = await submit(test, fakeNamed({ tunes: GPU.name }, 1));
    await until(test.service, id, "succeeded");
    assertEquals(choicesOf(await readTuned(test.service.store.folder), GPU).length, 1);
    const wrong = { ...fakeNamed(), kernels: { "choice 0": "b" } };
    const { status, body } = await test.call("POST", "/v1/runs", { recipe: wrong });
    assertEquals(status, 400);
    assertStringIncludes(JSON.stringify(body), "kernels");
  }));
