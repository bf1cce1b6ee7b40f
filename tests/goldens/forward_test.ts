import { assertEquals } from "@std/assert";
import { openFile } from "../../src/formats/files.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import { Generator } from "../../src/distill/generate/generator.ts";
import { generationPlan } from "../../src/distill/generate/generator.ts";
import { Model, uploadWeights } from "../../src/distill/inputs/models.ts";
import { traceModel } from "../../src/distill/program/traced_model.ts";
import { compile } from "../../src/tensor/executable.ts";
import { plan, Program } from "../../src/tensor/plan.ts";
import { FAMILIES, testGpu } from "../tensor/harness.ts";
import { sharedPath, sharedTest } from "../shared.ts";

/** Logits [T, V] of token streams packed back to back, each a sequence of its own. */
export async function packedLogits(
  path: string,
  sequences: readonly (readonly number[])[],
  family: "subgroup8" | "tiled",
): Promise<{ logits: Float32Array; vocabulary: number }> {
  const gpu = await testGpu(family);
  const model = await Model.open(path, { category: "weights" });
  try {
    const ids = sequences.flat();
    const program = new Program();
    const graph = program.block("forward");
    const { vocabularySize, contextLength } = model.config;
    const { hidden, logits: head } = traceModel(graph, "model", model, ids.length, { length: contextLength });
    graph.output("logits", head(hidden));
    const planned = plan(program, gpu.description);
    const weights = await uploadWeights(gpu, planned, [model]);
    const executable = await compile(gpu, planned, { weights });
    executable.poison();
    const starts = sequences.map((_, i) => sequences.slice(0, i).reduce((sum, s) => sum + s.length, 0));
    const perToken = (value: (sequence: number, position: number) => number) =>
      Int32Array.from(sequences.flatMap((s, i) => s.map((_, p) => value(i, p))));
    executable.write("tokens", Int32Array.from(ids));
    executable.write("positions", perToken((_, p) => p));
    executable.write("start", perToken((i) => starts[i]!));
    executable.write("end", perToken((i, p) => starts[i]! + p + 1));
    executable.run("forward");
    const logits = (await executable.read(["logits"], "forward")).get("logits")!.data as Float32Array;
    gpu.check();
    executable.destroy();
    for (const w of weights.values()) w.destroy();
    return { logits, vocabulary: vocabularySize };
  } finally {
    model.close();
  }
}

/** Fails unless both families of kernels give these logits. */
async function comparePacked(
  path: string,
  sequences: readonly (readonly number[])[],
  expected: Float32Array,
): Promise<void> {
  for (const family of FAMILIES) {
    const { logits } = await packedLogits(path, sequences, family);
    let worst = 0;
    for (let i = 0; i < expected.length; i++) worst = Math.max(worst, Math.abs(logits[i]! - expected[i]!));
    if (!(worst < 2e-4)) throw new Error(`${family}: logits differ by ${worst}`);
  }
}

for (const family of FAMILIES) {
  sharedTest(`decoder() gives stories260K's reference logits [${family}]`, async () => {
    const file = await SafetensorsFile.open(
      await openFile(sharedPath("goldens/forward/stories260K/forward.safetensors")),
    );
    const ids = Array.from((await file.readArray("ids")).data as Int32Array);
    const expected = (await file.readArray("logits")).data as Float32Array;
    file.close();
    const { logits } = await packedLogits(sharedPath("models/stories260K"), [ids], family);
    let worst = 0;
    for (let i = 0; i < expected.length; i++) worst = Math.max(worst, Math.abs(logits[i]! - expected[i]!));
    if (!(worst < 5e-4)) throw new Error(`logits differ by ${worst}`);
  });

  sharedTest(
    `Generator.generate() gives stories260K's greedy tokens, also several prompts at once [${family}]`,
    async () => {
      const golden = JSON.parse(
        await Deno.readTextFile(sharedPath("goldens/forward/stories260K/forward.json")),
      );
      const gpu = await testGpu(family);
      const model = await Model.open(sharedPath("models/stories260K"), { category: "weights" });
      const options = { sequences: 2, length: 256 };
      const weights = await uploadWeights(gpu, generationPlan(gpu.description, model, options), [model]);
      const generator = await Generator.create(gpu, model, weights, options);
      const greedy = { temperature: 0, topK: 0, topP: 1, seed: 1, stopTokens: [] };
      const { greedy: a, greedy_from_bos: b } = golden;
      // The kernels for hardware are slow here.
      const maxTokens = family === "tiled" ? 60 : 200;
      const texts = await generator.generate(
        [Int32Array.from(b.prompt_ids), Int32Array.from(a.prompt_ids)],
        { ...greedy, maxTokens },
      );
      for (const [i, { new_ids: ids }] of [b, a].entries()) {
        const wanted = ids.slice(0, maxTokens);
        assertEquals(Array.from(texts[i]!.tokens.subarray(0, wanted.length)), wanted);
      }
      generator.destroy();
      for (const w of weights.values()) w.destroy();
      assertEquals(gpu.allocatedBytes, 0);
      model.close();
    },
  );
}

for (const name of ["tied_q8_0", "untied_mixed"]) {
  sharedTest(`decoder() gives the reference logits of ${name}.gguf, in both families`, async () => {
    const { ids } = JSON.parse(await Deno.readTextFile(sharedPath(`goldens/gguf/${name}.json`)));
    const file = await SafetensorsFile.open(
      await openFile(sharedPath(`goldens/gguf/${name}.expected.safetensors`)),
    );
    const expected = (await file.readArray("logits")).data as Float32Array;
    file.close();
    await comparePacked(sharedPath(`goldens/gguf/${name}.gguf`), ids, expected);
  });
}
