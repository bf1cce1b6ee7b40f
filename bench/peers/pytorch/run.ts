/**
 * Measures PyTorch with PEFT on one case and prints one line of JSON, as `bench/peers/run.ts` does of libraries in TypeScript.
 *
 * Run with `deno run -A bench/peers/pytorch/run.ts <python> <case> [timed steps]`, where `<python>` is the interpreter of an environment
 * with torch, transformers and peft; `step.py` says which versions it was made with.
 *
 * @module
 */
import { CASE_NAMES, isCaseName, loadCase, SETTINGS, type StepCase } from "../case.ts";

/** Writes a case into a folder for `step.py`, and returns the path of its JSON. */
async function writeCase(folder: string, stepCase: StepCase): Promise<string> {
  const { name, modelFolder, keptLayers, segments, segmentLength, batch, adapter } = stepCase;
  const tensors = [...adapter].map(([name, { shape }]) => ({ name, shape }));
  const values = [...adapter.values()].flatMap(({ data }) => [...data]);
  await Deno.writeFile(`${folder}/adapter.f32`, new Uint8Array(Float32Array.from(values).buffer));
  const path = `${folder}/case.json`;
  await Deno.writeTextFile(
    path,
    JSON.stringify({
      ...{ name, modelFolder, keptLayers, segments, segmentLength, settings: SETTINGS },
      ...{ tokens: [...batch.tokens], labels: [...batch.label], adapter: tensors },
    }),
  );
  return path;
}

if (import.meta.main) {
  const [python, caseName, timed = "8"] = Deno.args;
  if (python === undefined || !isCaseName(caseName)) {
    console.error(
      `usage: deno run -A bench/peers/pytorch/run.ts <python> <${CASE_NAMES.join(" | ")}> [timed steps]`,
    );
    Deno.exit(2);
  }
  const stepCase = loadCase(caseName);
  if (!stepCase) Deno.exit(0);
  const folder = await Deno.makeTempDir({ prefix: "limbeck-pytorch-" });
  let code: number;
  try {
    const script = decodeURIComponent(new URL("./step.py", import.meta.url).pathname);
    const command = new Deno.Command(python, {
      args: [script, await writeCase(folder, stepCase), timed],
      // It would look for the models elsewhere first.
      env: { HF_HUB_OFFLINE: "1", TRANSFORMERS_VERBOSITY: "error" },
      stdout: "inherit",
      stderr: "inherit",
    });
    code = (await command.output()).code;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  Deno.exit(code);
}
