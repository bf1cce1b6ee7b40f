/** Datasets of the hub: which files are meant, where they lie, and how a recipe names them. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
// @ts-types="../../types/std_path.d.ts"
import { relative } from "@std/path";
import { InputError } from "../../src/base/errors.ts";
import { absolutePaths } from "../../src/distill/recipe/paths.ts";
import { fetchModel, fetchPlace, isWhole } from "../../src/hub/fetch_model.ts";
import { blobsAt, hubRecord, placeOf } from "../../src/hub/hub_cache.ts";
import { parseHubName, writeHubName } from "../../src/hub/hub_name.ts";
import { neededDataset } from "../../src/hub/needed_dataset.ts";
import { withLocalModels } from "../../src/runs/task/hub_models.ts";
import { openDataset } from "../../src/text/dataset.ts";
import { datasetFiles, withoutPattern } from "../../src/text/read/files.ts";
import { RowFile } from "../../src/text/stream/row_file.ts";
import { gitHash } from "./fake_hub.ts";
import { filesBelow, FIRST, HASTE, noise, repository, text, withHub } from "./hub_cases.ts";

const rows = (from: number, count: number) =>
  text(Array.from({ length: count }, (_, i) => JSON.stringify({ text: `row ${from + i}` }) + "\n").join(""));

Deno.test("names of datasets say what is meant of them, and are written as they were read", () => {
  for (
    const [name, expected] of [
      ["hf:datasets/org/name", { kind: "dataset", repository: "org/name", revision: "main" }],
      ["hf:datasets/org/name@v1", { kind: "dataset", repository: "org/name", revision: "v1" }],
      ["hf:datasets/org/name/data/train-*.parquet@refs/convert/parquet", {
        kind: "dataset",
        repository: "org/name",
        path: "data/train-*.parquet",
        revision: "refs/convert/parquet",
      }],
    ] as const
  ) {
    assertEquals(parseHubName(name), expected);
    assertEquals(writeHubName(parseHubName(name)), name);
  }
  assertEquals("kind" in parseHubName("hf:org/name"), false);
  for (
    const name of [
      "hf:datasets/",
      "hf:datasets/a//b",
      "hf:datasets/a/b/../c",
      "hf:datasets/a/b/*/c",
      "hf:a/b/*.gguf",
    ]
  ) {
    assertThrows(() => parseHubName(name), InputError, "of the hub: ");
  }
  assertStringIncludes(
    assertThrows(() => parseHubName("hf:datasets/-/b"), InputError).hint!,
    "hf:datasets/ORG/NAME/FILE.parquet",
  );
});

Deno.test("of a dataset's files one split is fetched, in one format; where that is not clear, what there is is told", () => {
  const of = (listing: string[], path?: string) => neededDataset(listing, path, "hf:datasets/o/n@v2");
  const about = ["README.md", ".gitattributes", "dataset_infos.json"];
  const shards = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"];
  const test = "data/test-00000-of-00001.parquet";
  assertEquals(of([...about, "all.jsonl"]), { files: ["all.jsonl"], only: "all.jsonl" });
  assertEquals(of([...about, ...shards, test]), {
    files: shards,
    only: "data/train-0000{0,1}-of-00002.parquet",
  });
  assertEquals(of([...about, ...shards, test], "data"), {
    files: shards,
    only: "data/train-0000{0,1}-of-00002.parquet",
  });
  assertEquals(of([...shards, test], "data/test-*.parquet"), { files: [test], only: test });
  assertEquals(of([...shards, test], test), { files: [test], only: test });
  assertEquals(of(["train.csv", "train.jsonl.gz", "test.csv"]).files, ["train.jsonl.gz"]);
  assertEquals(of(["main/train-1.parquet", "other/train-1.parquet"], "main").files, ["main/train-1.parquet"]);
  for (
    const [listing, path, why, hint] of [
      [about, undefined, "has no data that could be read", "@refs/convert/parquet"],
      [
        ["a.jsonl", "b.jsonl"],
        undefined,
        "not clear which of its 2 data files",
        "Name one: hf:datasets/o/n/a.jsonl@v2, ",
      ],
      [["x/train.csv", "y/train.csv"], undefined, "not clear which", "hf:datasets/o/n/y/train.csv@v2"],
      [shards, "data/dev-*.parquet", "has no data files like data/dev-*.parquet", "train-00000"],
      [shards, "nowhere", "has no nowhere", "train-00000"],
    ] as const
  ) {
    const error = assertThrows(() => of([...listing], path), InputError, why);
    assertStringIncludes(error.hint!, hint);
  }
});

Deno.test("a dataset is fetched into the cache that Python has too, read as one, and found offline", () =>
  withHub({
    "datasets/ada/rows": repository({
      "README.md": text("# Rows\n"),
      "data/train-00000-of-00002.jsonl": rows(0, 60),
      "data/train-00001-of-00002.jsonl": rows(60, 3),
      "data/test-00000-of-00001.jsonl": rows(100, 2),
      "data/large.bin": noise(4000),
    }),
  }, async (hub, settings, folder) => {
    const options = { settings, patience: HASTE };
    const name = "hf:datasets/ada/rows";
    const path = await fetchModel(parseHubName(name), options);
    assertEquals(
      relative(folder, path),
      `hub/datasets--ada--rows/snapshots/${FIRST}/data/train-0000{0,1}-of-00002.jsonl`,
    );
    assertEquals(placeOf(path), {
      ...{ kind: "dataset", cacheFolder: settings.cacheFolder, repository: "ada/rows", commit: FIRST },
      path: "data/train-0000{0,1}-of-00002.jsonl",
    });
    const files = (await filesBelow(folder)).filter((file) => file.includes("snapshots"));
    assertEquals(files.map((file) => file.split(" -> ")[0]!.split("/").at(-1)), [
      "train-00000-of-00002.jsonl",
      "train-00001-of-00002.jsonl",
    ]);
    const read = await openDataset(path);
    assertEquals(
      read.map((row) => row.shape === "text" && row.text),
      Array.from({ length: 63 }, (_, i) => `row ${i}`),
    );
    // Rows are named by the file that they are in.
    const [first, second] = await datasetFiles(path);
    assertEquals([read[59]!.source, read[60]!.source], [{ file: first!, line: 60 }, {
      file: second!,
      line: 1,
    }]);
    const streamed = await RowFile.open(path, { scratch: `${folder}/scratch` });
    assertEquals([streamed.count, streamed.row(62).shape], [63, "text"]);
    streamed.close();
    assertEquals([
      await isWhole(path),
      (await Promise.all((await datasetFiles(path)).map(blobsAt))).flat().length,
    ], [true, 2]);
    assertEquals(await hubRecord(path), {
      ...{ repository: "ada/rows", commit: FIRST },
      files: {
        "data/train-00000-of-00002.jsonl": (await filesBelow(`${folder}/hub/datasets--ada--rows/blobs`))
          .find((hash) => hash.length === 64)!,
        "data/train-00001-of-00002.jsonl": gitHash(rows(60, 3)),
      },
    });

    const asked = hub.seen.length;
    const offline = { settings: { ...settings, offline: true }, patience: HASTE };
    assertEquals(await fetchModel(parseHubName(name), offline), path);
    const missing = parseHubName(`${name}/data/test-*.jsonl`);
    await assertRejects(
      () => fetchModel(missing, offline),
      InputError,
      "has no data files like data/test-*.jsonl",
    );
    assertEquals(hub.seen.length, asked);
    await assertRejects(() => fetchModel(parseHubName("hf:datasets/ada/none"), options), InputError, "401");

    // Where the cache was emptied, the same commit's files come back.
    await Deno.remove(settings.cacheFolder, { recursive: true });
    assertEquals(await isWhole(path), false);
    await fetchPlace(placeOf(path)!, options);
    assertEquals((await openDataset(path)).length, 63);
  }));

Deno.test("a recipe may name datasets of the hub wherever it names files", async () => {
  const recipe = {
    teacher: { model: "hf:ada/model" },
    data: {
      train: [{ path: "hf:datasets/ada/rows" }, { path: "own.csv" }],
      heldOut: "hf:datasets/ada/rows/data/test.csv",
    },
  };
  const absolute = absolutePaths(recipe, "/f");
  assertEquals(absolute.data, {
    train: [{ path: "hf:datasets/ada/rows" }, { path: "/f/own.csv" }],
    heldOut: "hf:datasets/ada/rows/data/test.csv",
  });
  const local = await withLocalModels(
    absolute as never,
    (name) => Promise.resolve(`/cache/${name.slice(3)}`),
  );
  assertEquals(local as unknown, {
    teacher: { model: "/cache/ada/model" },
    data: {
      train: [{ path: "/cache/datasets/ada/rows" }, { path: "/f/own.csv" }],
      heldOut: "/cache/datasets/ada/rows/data/test.csv",
    },
  });
});

Deno.test("a * stands for files of a folder, in the order of their names", async () => {
  const folder = await Deno.makeTempDir();
  for (const name of ["b-2.jsonl", "b-10.jsonl", "b-1.jsonl", "c.jsonl"]) {
    await Deno.writeTextFile(`${folder}/${name}`, "");
  }
  await Deno.mkdir(`${folder}/b-folder.jsonl`);
  const names = async (pattern: string) =>
    (await datasetFiles(`${folder}/${pattern}`)).map((file) => relative(folder, file));
  assertEquals(await names("b-*.jsonl"), ["b-1.jsonl", "b-10.jsonl", "b-2.jsonl"]);
  assertEquals(await names("no.such"), ["no.such"]);
  // The process of a run may list no folders, so its files are named once.
  const listed = await withoutPattern(`${folder}/b-*.jsonl`);
  assertEquals(listed, `${folder}/b-{1,10,2}.jsonl`);
  assertEquals(await datasetFiles(listed), await datasetFiles(`${folder}/b-*.jsonl`));
  assertEquals(await withoutPattern(`${folder}/c*`), `${folder}/c.jsonl`);
  // A file may have such a name, and one that is not there is named by who opens it.
  await Deno.writeTextFile(`${folder}/{x,y}.csv`, "");
  assertEquals(await names("{x,y}.csv"), ["{x,y}.csv"]);
  assertEquals(await names("{x,z}.csv"), ["x.csv", "z.csv"]);
  await assertRejects(() => withoutPattern(`${folder}/*`), InputError, "commas or braces");
  await assertRejects(() => names("d*"), InputError, "has a name like d*");
  await assertRejects(() => datasetFiles(`${folder}/none/*`), InputError, "cannot be listed");
  await Deno.remove(folder, { recursive: true });
});
