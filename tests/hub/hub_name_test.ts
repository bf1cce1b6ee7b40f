/** Names of models of the hub, what the environment says, and where things lie in the cache. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { placeOf, placePath } from "../../src/hub/hub_cache.ts";
import { parseHubName, writeHubName } from "../../src/hub/hub_name.ts";
import { hubSettings } from "../../src/hub/hub_settings.ts";
import { withFolder } from "../runs/fake_run.ts";

Deno.test("names are read and written", () => {
  const main = "main";
  for (
    const [text, name] of [
      ["hf:ada/small", { repository: "ada/small", revision: main }],
      ["hf:gpt2", { repository: "gpt2", revision: main }],
      ["hf:ada/small@v1.0", { repository: "ada/small", revision: "v1.0" }],
      ["hf:ada/small@refs/pr/2", { repository: "ada/small", revision: "refs/pr/2" }],
      ["hf:Ada_1/s.m-l/a b-Q8_0.gguf@v1", {
        repository: "Ada_1/s.m-l",
        path: "a b-Q8_0.gguf",
        revision: "v1",
      }],
      ["hf:ada/small/sub/step-5", { repository: "ada/small", path: "sub/step-5", revision: main }],
    ] as const
  ) {
    assertEquals(parseHubName(text), name);
    assertEquals(writeHubName(name), text);
  }
  assertEquals(writeHubName(parseHubName("hf:ada/small@main")), "hf:ada/small");
});

Deno.test("what is no name is refused, whatever it would lead to", () => {
  for (
    const text of [
      "ada/small",
      "hf:",
      "hf:/small",
      "hf:ada/",
      "hf:ada//x",
      "hf:../small",
      "hf:ada/..",
      "hf:ada/small/../../x",
      "hf:ada/small/./x",
      "hf:ada/sm all",
      "hf:ada/small?x",
      "hf:ada--small/x",
      "hf:-ada/small",
      "hf:ada/small@",
      "hf:ada/small@v1@v2",
      "hf:ada/small@../../../etc",
      "hf:ada/small@a//b",
      "hf:ada/small@a\\b",
      "hf:ada/small/x\n.gguf",
      "hf:ada/small/x%2e.gguf",
    ]
  ) {
    const error = assertThrows(() => parseHubName(text, "teacher.model"), InputError);
    assertEquals(error.message.startsWith("teacher.model: "), true, text);
  }
});

Deno.test("the environment says what it says to Python", async () => {
  const of = (values: Record<string, string>) => hubSettings((name) => values[name]);
  const cache = (values: Record<string, string>) => of({ HOME: "/home/ada", ...values }).cacheFolder;
  assertEquals(cache({}), "/home/ada/.cache/huggingface/hub");
  assertEquals(cache({ XDG_CACHE_HOME: "/cache" }), "/cache/huggingface/hub");
  assertEquals(cache({ XDG_CACHE_HOME: "/cache", HF_HOME: "~/models" }), "/home/ada/models/hub");
  assertEquals(cache({ HF_HOME: "$HOME/x/${HOME}" }), "/home/ada/x/home/ada/hub");
  assertEquals(cache({ HF_HOME: "/models", HF_HUB_CACHE: "/other" }), "/other");
  assertEquals(cache({ HF_HOME: "/models", HUGGINGFACE_HUB_CACHE: "/old" }), "/old");
  assertEquals(cache({ HF_HOME: "" }), "/home/ada/.cache/huggingface/hub");
  assertEquals(of({}).endpoint, "https://huggingface.co");
  assertEquals(of({ HF_ENDPOINT: "http://127.0.0.1:80/hub/" }).endpoint, "http://127.0.0.1:80/hub");
  for (const wrong of ["mirror", "ftp://mirror"]) {
    assertThrows(() => of({ HF_ENDPOINT: wrong }), InputError, "HF_ENDPOINT");
  }
  for (const on of ["1", "true", "Yes", "ON"]) assertEquals(of({ HF_HUB_OFFLINE: on }).offline, true);
  for (const off of ["", "0", "false"]) assertEquals(of({ HF_HUB_OFFLINE: off }).offline, false);
  assertEquals(of({ TRANSFORMERS_OFFLINE: "1" }).offline, true);

  await withFolder(async (folder) => {
    const home = { HF_HOME: folder };
    assertEquals(await of(home).token(), undefined);
    await Deno.writeTextFile(`${folder}/token`, "hf_file\n");
    assertEquals(await of(home).token(), "hf_file");
    assertEquals(await of({ ...home, HF_TOKEN: " hf_variable " }).token(), "hf_variable");
    assertEquals(await of({ ...home, HUGGING_FACE_HUB_TOKEN: "hf_old" }).token(), "hf_old");
    await Deno.writeTextFile(`${folder}/other`, "hf_other");
    assertEquals(await of({ ...home, HF_TOKEN_PATH: `${folder}/other` }).token(), "hf_other");
  });
});

Deno.test("a path in a cache tells its place", () => {
  const commit = "a".repeat(40);
  for (
    const place of [
      { cacheFolder: "/c/hub", repository: "ada/small", commit },
      { cacheFolder: "/c/hub", repository: "gpt2", commit },
      { cacheFolder: "/c/hub", repository: "ada/small", commit, path: "sub/x.gguf" },
      { cacheFolder: "/", repository: "ada/small", commit },
    ]
  ) assertEquals(placeOf(placePath(place)), place);
  assertEquals(placeOf("/c/models--ada--small/snapshots/main"), undefined);
  assertEquals(placeOf(`/c/small/snapshots/${commit}`), undefined);
  assertEquals(placeOf("/c/small"), undefined);
});
