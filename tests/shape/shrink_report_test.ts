/** Pictures of shrinks, several numbers of layers and widths at once, and shrinks that are stopped. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { shrink as shrinkInProgram, shrinkEach } from "../../mod.ts";
import { main } from "../../src/cli/main.ts";
import { Model } from "../../src/distill/inputs/models.ts";
import { shrinkReportHtml } from "../../src/runs/report/shrink_report.ts";
import { shrinkModel } from "../../src/shape/shrink.ts";
import { rememberedStatistics } from "../../src/shape/width/statistics_cache.ts";
import { type MeasuredShape, shapesToTime } from "../../src/shape/shapes.ts";
import type { ShrinkOptions } from "../../src/shape/shrunk.ts";
import { Registry } from "../../src/registry/registry.ts";
import { builtins } from "../../plugins/mod.ts";
import { fakeTerminal } from "../cli/fake_terminal.ts";
import { type TinyFiles, withTiny } from "../distill/tiny_model.ts";

async function shrink({ folder, teacher, heldOut }: TinyFiles, ...more: string[]) {
  const terminal = fakeTerminal();
  const given = ["--data", heldOut, "--cache", `${folder}/cache`, "--no-setup"];
  const code = await main(["shrink", teacher, ...given, ...more], terminal);
  return { code, out: terminal.out, err: terminal.err };
}

function tinyTest(name: string, fn: (files: TinyFiles) => Promise<void>): void {
  Deno.test({ ...{ name, sanitizeOps: false, sanitizeResources: false }, fn: () => withTiny(fn) });
}

/** A shape as a shrink tells of it. */
type ToldShape = MeasuredShape & { values: { loss: number; kl?: number } };

function shapeOf(shapes: readonly ToldShape[], layers: readonly number[], width?: number): ToldShape {
  return shapes.find((shape) => String(shape.layers) === String(layers) && shape.width === width)!;
}

tinyTest(
  "several numbers of layers and widths are measured and drawn, each as it is by itself",
  async (files) => {
    const { folder, teacher } = files;
    const report = `${folder}/shapes.html`;
    const args = ["--layers", "2", "--width", "1,0.6", "--structure", "uniform"];
    const { code, out, err } = await shrink(files, ...args, "--report", report, "--json");
    assertEquals(code, 0, err);
    const told = JSON.parse(out);
    assertEquals(
      told.cells.map((c: { layers: number; width?: object }) => [c.layers, c.width !== undefined]),
      [
        [2, false],
        [2, true],
      ],
    );
    const shapes: ToldShape[] = told.shapes;
    const whole = shapeOf(shapes, [0, 1, 2]);
    assertEquals([whole.by, whole.rank, whole.parameters], [["whole"], undefined, told.model.parameters]);
    // Each is what a shrink of its own finds, and as large as what that writes.
    for (const width of [undefined, 0.6]) {
      const output = `${folder}/of-${width}`;
      const own = ["--layers", "2", ...width ? ["--width", "0.6", "--structure", "uniform"] : []];
      const alone = JSON.parse((await shrink(files, ...own, "--output", output, "--json")).out);
      const shape = shapeOf(shapes, alone.kept, width);
      assertAlmostEquals(shape.values.loss, alone.width?.loss ?? alone.loss, 1e-9);
      assertAlmostEquals(shape.values.kl!, alone.width?.kl ?? alone.kl, 1e-9);
      assertEquals([shape.chosen, shape.rank], [true, width ? undefined : alone.rank]);
      const written = await Model.open(output, { category: "weights" });
      written.close();
      const { parameterCount, tensors } = written.architecture;
      // Biases of compensation are in the folder, and no parameters that were the model's.
      const biases = [...tensors].reduce(
        (sum, [name, shape]) => sum + (name.endsWith(".bias") ? shape[0]! : 0),
        0,
      );
      assertEquals(shape.parameters, parameterCount - biases);
    }
    assert(
      shapes.every(({ tokensPerSecond: speed, chosen }) => !chosen || (Number.isFinite(speed) && speed! > 0)),
    );

    const html = await Deno.readTextFile(report);
    assert(told.timedOn !== "" && html.includes(` on ${told.timedOn}`), told.timedOn);
    for (const said of ["Loss against parameters", "Loss against tokens a second", "<strong>0.6</strong>"]) {
      assertStringIncludes(html, said);
    }
    assert(!/\b(src|href)=|https?:|url\(|<script|NaN|undefined/.test(html) && !html.includes(folder));
    assertStringIncludes(html, "Shapes of teacher");
    // As JSON nothing is timed, and all that was measured is there.
    const json = `${folder}/shapes.json`;
    assertEquals((await shrink(files, ...args, "--report", json)).code, 0);
    const all: ToldShape[] = JSON.parse(await Deno.readTextFile(json)).shapes;
    assert(all.every(({ tokensPerSecond }) => tokensPerSecond === undefined));
    assertEquals(shapeOf(all, [0, 1, 2]).values, whole.values);
    assert(!await Deno.stat(teacher + "/shapes").then(() => true, () => false));
  },
);

tinyTest("a report alone measures every number of layers; every-other knows its own", async (files) => {
  const json = `${files.folder}/all.json`;
  const { code, err, out } = await shrink(files, "--report", json);
  assertEquals(code, 0, err);
  const { cells, shapes } = JSON.parse(await Deno.readTextFile(json));
  assertEquals(cells.map(({ kept }: { kept: number[] }) => kept.length), [1, 2]);
  assert(shapes.length >= 6 && shapes.length <= 7, `${shapes.length} subsets of 3 layers`);
  assert(/kept +width +loss +kl +parameters$/m.test(out), out);
  const every = JSON.parse((await shrink(files, "--search", "every-other", "--json")).out);
  assertEquals([every.kept, every.layers], [[0, 2], 2]);

  const refused = async (said: string, ...args: string[]) => {
    const found = await shrink(files, ...args);
    assertEquals(found.code, 2, `${args}: ${found.err}`);
    assertStringIncludes(found.err, said);
  };
  await refused("--output is for one number of layers", "--layers", "1,2", "--output", `${files.folder}/o`);
  await refused("--shape is for one number of layers", "--width", "1,0.5", "--shape", `${files.folder}/o`);
  await refused('--layers must be a whole number, not "x"', "--layers", "2,x");
  await refused("--keep-last is for --layers", ...["--width", "0.5", "--keep-last", "1", "--report", json]);
  await refused("say how many layers stay: --layers COUNT", "--search", "dp");
  const nowhere = await shrink(files, "--layers", "2", "--report", `${files.folder}/no/shapes.html`);
  assertEquals(nowhere.code, 3);
  assertStringIncludes(nowhere.err, "there is no such file or folder");
  const whole = await shrink(files, "--layers", "3,3", "--width", "1");
  assertEquals(whole.code, 3);
  assertStringIncludes(whole.err, "all layers in their whole width are the model itself");
});

tinyTest(
  "what was looked at of the inputs is remembered for other widths, and made again if damaged",
  async (files) => {
    const { folder } = files;
    const run = async (width: string) => {
      const { code, out, err } = await shrink(files, "--width", width, "--json");
      assertEquals(code, 0, err);
      return JSON.parse(out).width;
    };
    const first = await run("0.6");
    const cache = () => [...Deno.readDirSync(`${folder}/cache`)].map(({ name }) => `${folder}/cache/${name}`);
    const [path] = cache().filter((name) => name.endsWith(".safetensors"));
    const made = (await Deno.stat(path!)).mtime;
    assertEquals(await run("0.6"), first);
    await run("0.5");
    assertEquals((await Deno.stat(path!)).mtime, made);
    assertEquals(cache().filter((name) => name.endsWith(".safetensors")).length, 1);
    // It is what is kept that is used: with other variances, other channels stay.
    const bytes = await Deno.readFile(path!);
    const begin = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
    const values = new Float64Array(bytes.buffer.slice(begin));
    new Uint8Array(bytes.buffer).set(new Uint8Array(values.map((x, i) => x * (1 + i % 7)).buffer), begin);
    await Deno.writeFile(path!, bytes);
    assert(String((await run("0.6")).channels) !== String(first.channels));
    await Deno.writeFile(path!, bytes.subarray(0, begin + 9));
    assertEquals(await run("0.6"), first);
    // Another model, other samples, other layers: other statistics.
    await shrink(files, "--width", "0.6", "--limit", "4");
    await shrink(files, "--width", "0.6", "--layers", "2", "--search", "every-other");
    assertEquals(cache().filter((name) => name.endsWith(".safetensors")).length, 3);
  },
);

tinyTest("a shrink that is stopped ends with its reason, and what it measured is kept", async (files) => {
  const { folder, teacher, heldOut } = files;
  const stop = new AbortController();
  const options: ShrinkOptions = {
    ...{ model: teacher, data: { files: [heldOut] }, metric: "loss", cacheFolder: `${folder}/cache` },
    goal: { search: "exhaustive", layers: 1, keepLast: 0, beamWidth: 4 },
    registry: new Registry().addAll(builtins),
    signal: stop.signal,
    output: `${folder}/small`,
  };
  const reason = new Error("enough");
  const ended = await shrinkModel({
    ...options,
    onProgress: ({ done }) => void (done === 2 && stop.abort(reason)),
  }).then(() => undefined, (error) => error);
  assertEquals(ended, reason);
  assert(!await Deno.stat(`${folder}/small`).then(() => true, () => false));
  const { signal: _, ...again } = options;
  const { cache } = await shrinkInProgram(again);
  assertEquals(cache!.reused, 2);
  const { cells } = await shrinkEach({ ...again, layers: [1], widths: [], search: again.goal! });
  assertEquals([cells.length, cells[0]!.cache!.reused], [1, 4]);
  // The statistics of inputs end too, and nothing half of them is kept.
  const other = new AbortController();
  const narrow = await shrinkModel({
    ...{ ...again, output: `${folder}/narrow`, width: { ratio: 0.5 }, signal: other.signal },
    onTokens: () => other.abort(reason),
  }).then(() => undefined, (error) => error);
  assertEquals(narrow, reason);
  const kept = [...Deno.readDirSync(options.cacheFolder)].map(({ name }) => name);
  assertEquals(kept.filter((name) => !name.endsWith(".jsonl")), []);
});

Deno.test("statistics are kept by all that they follow from", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const origin = { model: "m", layers: [0, 2], data: "d", faithful: false };
    let measured = 0;
    const ask = (change: Partial<typeof origin> = {}) =>
      rememberedStatistics(`${folder}/new`, { ...origin, ...change }, () => {
        const inputs = {
          count: 7,
          mean: Float64Array.of(++measured, 1e-300),
          variance: Float64Array.of(0, 2),
        };
        return Promise.resolve(Array.from({ length: 2 }, () => ({ attention: inputs, mlp: inputs })));
      });
    const first = await ask();
    for (const change of [{ model: "n" }, { layers: [0, 1] }, { data: "e" }, { faithful: true }]) {
      const before = measured;
      await ask(change);
      assertEquals(measured, before + 1, JSON.stringify(change));
    }
    assertEquals(await ask(), first);
    assertEquals(measured, 5);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

tinyTest("Ctrl-C ends a shrink with a word and its exit code", async ({ folder, teacher, heldOut }) => {
  const cli = new URL("../../src/cli/main.ts", import.meta.url).pathname;
  const more = ["--width", "0.5", "--output", `${folder}/small`, "--cache", `${folder}/cache`, "--no-setup"];
  const args = ["run", "-A", "--no-check", cli, "shrink", teacher, "--data", heldOut, ...more];
  const child = new Deno.Command(Deno.execPath(), { args, stdout: "null", stderr: "piped" }).spawn();
  let said = "";
  for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) {
    if (said === "") child.kill("SIGINT");
    said += text;
  }
  assertEquals((await child.status).code, 130, said);
  assertMatch(said, /^measuring the whole model/);
  assertStringIncludes(said, "stopped; what was measured is kept\nhint: The same command goes on");
  assert(!await Deno.stat(`${folder}/small`).then(() => true, () => false));
});

Deno.test("what is timed is what has a name or is near the frontier, at most as many as there is time for", () => {
  const shape = (parameters: number, loss: number, more: Partial<MeasuredShape> = {}): MeasuredShape => ({
    ...{ layers: [parameters], values: { loss }, parameters, by: [], chosen: false, ...more },
  });
  const shapes = [
    shape(1, 5),
    shape(2, 4),
    shape(2, 4.05),
    shape(2, 4.3),
    shape(3, 4.5, { by: ["cosine"] }),
    shape(3, 9, { width: 0.5 }),
  ];
  const timed = shapesToTime(shapes, "loss");
  assertEquals(new Set(timed), new Set(shapes.filter((s) => s.values.loss !== 4.3)));
  const many = Array.from({ length: 100 }, () => shape(2, 4));
  assertEquals(shapesToTime([...many, ...shapes], "loss").length, 32);
});

Deno.test("the page of a shrink says what was chosen, what was not measured, and tells no folder", () => {
  const common = { by: [], chosen: false };
  const html = shrinkReportHtml({
    model: { path: "/srv/models/<big>", identity: "", layers: 3, parameters: 3000 },
    data: { files: ["/data/sets/a&b.jsonl"], samples: 2, tokens: 10 },
    metric: "kl",
    timedOn: "llvmpipe",
    shapes: [
      {
        ...common,
        layers: [0, 1, 2],
        values: { loss: 1, kl: 0 },
        parameters: 3000,
        by: ["whole"],
        tokensPerSecond: 10,
      },
      {
        ...common,
        ...{ layers: [0, 2], width: 0.5, values: { loss: 2, kl: 1 }, parameters: 1000, stored: 1500 },
        ...{ by: ["dp"], chosen: true, tokensPerSecond: 1234.4 },
      },
      { ...common, layers: [0, 1], values: { loss: 3, kl: 2 }, parameters: 2000, rank: 1, by: ["cosine"] },
      { ...common, layers: [1, 2], values: { loss: null, kl: null }, parameters: 2000, rank: 2 },
    ],
  });
  const row = html.split("\n").find((line) => line.includes("<strong>0, 2"))!;
  assertMatch(row, /0, 2.*0\.5.*2\.000.*1\.000.*1 k \(1\.5 k in a folder\).*1234.*dp, chosen/);
  assertMatch(html, /<td>0, 1<\/td>.*<td>not measured<\/td><td>1<\/td><td>cosine<\/td>/);
  for (
    const said of [
      "Shapes of &lt;big&gt;",
      "a&amp;b.jsonl",
      "on llvmpipe",
      "Measured of 2 shapes",
      "1 more shape is in",
    ]
  ) {
    assertStringIncludes(html, said);
  }
  assert(!/srv|sets|<big>|NaN|undefined/.test(html));
});
