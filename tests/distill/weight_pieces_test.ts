/** Weights on their way to the GPU, piece by piece. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { Model, putPieces, type WeightPiece } from "../../src/distill/inputs/models.ts";
import type { TensorInfo } from "../../src/formats/model_source.ts";
import { tinyConfig } from "../models/tiny_configs.ts";
import { writeTinyModel } from "./tiny_model.ts";

/** Pieces 0, 1, 2 ... whose reading, and putting, is written down. */
function pieces(count: number, said: string[], broken = -1): WeightPiece[] {
  return Array.from({ length: count }, (_, at) => ({
    at,
    async read() {
      said.push(`read ${at}`);
      await Promise.resolve();
      if (at === broken) throw new Error(`piece ${at} is gone`);
      said.push(`${at} is there`);
      return Uint8Array.of(at);
    },
  }));
}

Deno.test("the next piece is read while the one before it is put", async () => {
  const said: string[] = [];
  await putPieces(pieces(3, said), async ({ at }, bytes) => {
    assertEquals([...bytes], [at]);
    said.push(`put ${at}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
    said.push(`${at} is put`);
  });
  assertEquals(said, [
    ...["read 0", "0 is there", "read 1", "put 0", "1 is there", "0 is put"],
    ...["read 2", "put 1", "2 is there", "1 is put", "put 2", "2 is put"],
  ]);
  await putPieces([], () => assertEquals(true, false));
});

Deno.test("what fails ends it, be it the reading or the putting", async () => {
  const said: string[] = [];
  await assertRejects(
    () => putPieces(pieces(3, said, 1), ({ at }) => void said.push(`put ${at}`)),
    Error,
    "piece 1 is gone",
  );
  assertEquals(said, ["read 0", "0 is there", "read 1", "put 0"]);
  // The reading that was begun fails as well, and nobody waits for it.
  const put = () => Promise.reject(new Error("there is no room"));
  await assertRejects(() => putPieces(pieces(3, [], 1), put), Error, "there is no room");
  await new Promise((resolve) => setTimeout(resolve, 1));
});

Deno.test("experts that are stored in two types are refused before one is read", async () => {
  const folder = await Deno.makeTempDir({ prefix: "limbeck-" });
  try {
    await writeTinyModel(`${folder}/model`, { config: tinyConfig("Qwen3MoeForCausalLM", 119) });
    const model = await Model.open(`${folder}/model`, { category: "weights" });
    const experts = [...model.architecture.tensors.keys()].filter((name) =>
      name.endsWith(".gate_proj.weight")
    );
    const [first, second] = experts.filter((name) => name.includes(".experts."));
    const { count, shape } = { count: 2, shape: model.architecture.tensors.get(first!)! };
    const stack = `${model.specs.prefix}${first} to ${count}`;
    const pieces = () => [...model.pieces(stack, [count * shape[0]!, shape[1]!])];
    assertEquals(pieces().length, count);
    const tensors = model.source.tensors as Map<string, TensorInfo>;
    tensors.set(second!, { ...tensors.get(second!)!, dtype: "BF16", exactDtype: "bf16" });
    const { message } = assertThrows(pieces, InputError);
    assertStringIncludes(message, `${second} is stored in another type than ${first}`);
    model.close();
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
