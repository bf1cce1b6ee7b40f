import { assert, assertEquals } from "@std/assert";
import { philox4x32 } from "../../src/base/random.ts";
import { dropout } from "../../src/tensor/ops/dropout.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import { gpuTest, randomArray, run } from "./harness.ts";

/** The bits of an integer as the float that carries them to the GPU. */
const asFloat = (n: number) => new Float32Array(Uint32Array.of(n).buffer)[0]!;

gpuTest(
  "dropout() zeroes what Philox says, scales the rest, and its gradient uses the same mask",
  async (gpu) => {
    const [rows, columns, rate] = [7, 13, 0.3];
    const x = randomArray(rows * columns, 3).map((v) => v + 2);
    const dy = randomArray(rows * columns, 4).map((v) => v + 2);
    const { outputs } = await run(
      gpu,
      [{ shape: [rows, columns], data: x }, { shape: [rows, columns], data: dy }],
      (g, x, dy) => {
        const y = dropout(x!, { rate, site: 5, key: g.scalar("key") });
        return [y, gradients(g, [[y, dy!]], [x!])[0]!];
      },
      { key: asFloat(77) },
    );
    let zeros = 0;
    for (let i = 0; i < x.length; i++) {
      const drawn = philox4x32([Math.floor(i / 4), 0, 0, 0], [77, 5])[i % 4]!;
      const factor = drawn >= rate * 2 ** 32 ? Math.fround(1 / (1 - rate)) : 0;
      assertEquals(outputs[0]![i], Math.fround(x[i]! * factor), `value ${i}`);
      assertEquals(outputs[1]![i], Math.fround(dy[i]! * factor), `gradient ${i}`);
      zeros += Number(factor === 0);
    }
    assert(zeros > 10 && zeros < 50, `${zeros} of ${x.length} are zero`);
  },
);
