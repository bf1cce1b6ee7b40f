/** The decoder that is traced from each family's description, against the same in f64 with plain loops. */
// @ts-types="../../types/std_assert.d.ts"
import { assert } from "@std/assert";
import { Model } from "../../src/distill/inputs/models.ts";
import { toFloat32 } from "../../src/formats/dtype.ts";
import type { DescribedConfig } from "../../src/models/decoder/description.ts";
import { Reader } from "../distill/logits.ts";
import { withTiny } from "../distill/tiny_model.ts";
import { modelTest } from "../tensor/harness.ts";
import { referenceLogits } from "./reference_decoder.ts";
import { ARCHITECTURES, tinyConfig } from "./tiny_configs.ts";

/** No multiple of any tile. */
const VOCABULARY = 147;
/** Longer than every window, and than the first context of the Phi-3. */
const TOKENS = Array.from({ length: 19 }, (_, i) => 3 + (i * i * 7 + 5 * i) % (VOCABULARY - 3));

for (const architecture of ARCHITECTURES) {
  modelTest(`a ${architecture} computes what its description says`, (gpu) =>
    withTiny(async (files) => {
      const model = await Model.open(files.teacher, { category: "weights" });
      const values = new Map<string, Float32Array>();
      for (const name of model.architecture.tensors.keys()) {
        const { dtype, data } = await model.read(name);
        values.set(name, toFloat32(dtype, data));
      }
      using reader = await Reader.open(gpu, model, TOKENS.length);
      const found = await reader.logits(Int32Array.from(TOKENS));
      const { names } = model.architecture.family;
      const config = model.config as DescribedConfig;
      const expected = referenceLogits(config, names, (name) => values.get(name)!, TOKENS).flatMap((
        row,
      ) => [...row]);
      const largest = expected.reduce((most, v) => Math.max(most, Math.abs(v)), 1);
      expected.forEach((v, i) => {
        const difference = Math.abs(found[i]! - v);
        assert(difference <= 2e-5 * largest, `logit ${i} is ${found[i]}, not ${v}`);
      });
      model.close();
    }, { config: tinyConfig(architecture, VOCABULARY), seed: 7 }));
}
