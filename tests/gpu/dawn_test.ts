/**
 * Dawn in the place of Deno's own WebGPU: the same plan, results within rounding and the same errors; and a run that says it was asked for.
 *
 * Each program has a process of its own: a library that crashes ends that one alone.
 */
// @ts-types="../../types/std_assert.d.ts"
import {
  assert,
  assertEquals,
  assertLess,
  assertMatch,
  assertObjectMatch,
  assertRejects,
  assertThrows,
} from "@std/assert";
import { DeviceError, UsageError } from "../../src/base/errors.ts";
import type { KernelFamily } from "../../src/gpu/description.ts";
import { openGpu } from "../../src/gpu/device.ts";
import { GPU_PROVIDERS, useProvider } from "../../src/gpu/provider.ts";
import { chooseProvider, machineProvider, readProvider } from "../../src/runs/child/provider/choice.ts";
import { providerNeeds } from "../../src/runs/child/provider/needs.ts";
import { readRun } from "../../src/runs/store/run_folder.ts";
import { withTiny } from "../distill/tiny_model.ts";
import { startFake, withFolder } from "../runs/fake_run.ts";
import { relativeError } from "../tensor/harness.ts";
import type { OneStep } from "./one_step.ts";

const ROOT = decodeURIComponent(new URL("../../", import.meta.url).pathname);
const LOCK = `${ROOT}src/runs/child/provider/dawn.lock`;
const PACKAGE = GPU_PROVIDERS.dawn.package!;

/** Software drivers that Dawn takes where it does not take Mesa's: Chromium brings one. */
const OTHER_DRIVERS = ["/usr/lib/chromium/vk_swiftshader_icd.json"];

interface Outcome {
  readonly success: boolean;
  readonly stdout: string;
  readonly stderr: string;
}

async function deno(args: readonly string[], env: Record<string, string> = {}): Promise<Outcome> {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    ...{ args: [...args], cwd: ROOT, stdin: "null" },
    env: { NO_COLOR: "1", ...env },
  }).output();
  const decoder = new TextDecoder();
  return { success, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** Arguments that run a program with Dawn. */
const WITH_DAWN = ["--allow-all", "--quiet", "--no-check", "--no-lock", "--preload=tests/gpu/with_dawn.ts"];

interface Machine {
  /** What makes Dawn find an adapter. */
  readonly env: Record<string, string>;
  readonly subgroups: number;
}

/** What makes Dawn work here; or why it does not. */
async function findDawn(): Promise<Machine | string> {
  const fetched = await deno(["cache", "--no-config", `--lock=${LOCK}`, "--frozen", PACKAGE]);
  if (!fetched.success) {
    // The wrong bytes are no reason to skip.
    if (/checksum|integrity/i.test(fetched.stderr)) throw new Error(fetched.stderr);
    return `${PACKAGE} cannot be had: ${fetched.stderr.trim().split("\n").at(-1)}`;
  }
  const drivers = OTHER_DRIVERS.filter((path) => {
    try {
      return Deno.statSync(path).isFile;
    } catch {
      return false;
    }
  });
  for (const env of [{}, ...drivers.map((path) => ({ VK_DRIVER_FILES: path, VK_ICD_FILENAMES: path }))]) {
    const { success, stdout } = await deno(["run", ...WITH_DAWN, "tests/gpu/probe.ts"], env);
    if (success) return { env, subgroups: Number(stdout.trim()) };
  }
  return "Dawn takes no adapter here";
}

Deno.test("a provider that is not installed says how it is, and nothing is fetched", async () => {
  const folder = await Deno.makeTempDir();
  const before = Deno.env.get("DENO_DIR");
  Deno.env.set("DENO_DIR", folder);
  try {
    const error = await assertRejects(() => providerNeeds("dawn"), DeviceError, "is not installed");
    assertMatch(
      (error as DeviceError).hint ?? "",
      /`deno cache --no-config npm:webgpu@[\d.]+` fetches it once/,
    );
    assertEquals([...Deno.readDirSync(folder)].filter(({ name }) => name === "npm"), []);
  } finally {
    if (before === undefined) Deno.env.delete("DENO_DIR");
    else Deno.env.set("DENO_DIR", before);
    await Deno.remove(folder, { recursive: true });
  }
});

const dawn = await findDawn();
if (typeof dawn === "string") console.log(`skip: tests of Dawn: ${dawn}`);

function dawnTest(name: string, fn: (machine: Machine) => Promise<void>): void {
  Deno.test({ name, ignore: typeof dawn === "string", fn: () => fn(dawn as Machine) });
}

/** Tests that run on it as they are: devices and what is told of their errors, and ops whose kernels compile soon. */
const SAME_TESTS = [
  "tests/gpu/device_test.ts",
  "tests/tensor/pointwise_test.ts",
  "tests/tensor/rms_norm_test.ts",
];

dawnTest("tests of the device and of kernels pass with Dawn", async ({ env }) => {
  const { success, stdout, stderr } = await deno(["test", ...WITH_DAWN, ...SAME_TESTS], env);
  assert(success, stdout + stderr);
  assertMatch(stdout, /ok \| [1-9]\d* passed/);
});

/** Bounds of what differs: other compilers contract, reorder and round elementary functions otherwise. Losses are near 3. */
const ROUNDING = { losses: 2e-6, gradientNorms: 2e-5, parameters: 2e-5 };

for (const family of ["tiled", "subgroup8"] satisfies KernelFamily[]) {
  dawnTest(`a plan is the same with Dawn, and training within rounding [${family}]`, async (machine) => {
    if (family === "subgroup8" && machine.subgroups !== 8) {
      console.log(`skip: subgroups of Dawn's adapter have ${machine.subgroups} lanes, not 8`);
      return;
    }
    await withTiny(async ({ folder }) => {
      const run = async (flags: readonly string[], env: Record<string, string> = {}): Promise<OneStep> => {
        const { success, stdout, stderr } = await deno(
          ["run", ...flags, "tests/gpu/one_step.ts", folder, family],
          env,
        );
        assert(success, stderr);
        return JSON.parse(stdout.trim().split("\n").at(-1)!);
      };
      const [own, other] = await Promise.all([
        run(["--allow-all", "--quiet", "--no-check"]),
        run(WITH_DAWN, machine.env),
      ]);
      assertEquals([own.provider, other.provider], ["native", "dawn"]);
      assertEquals(other.plan, own.plan);
      assertEquals([own.ends, other.ends], [true, true], "a parameter that is no number ends a run");
      for (const key of ["losses", "gradientNorms", "parameters"] as const) {
        assertLess(relativeError(other[key], own[key]), ROUNDING[key], key);
      }
      // The bounds are narrow: what one step changes is far beyond them.
      assertLess(ROUNDING.losses * 1e3, relativeError([own.losses[0]!], [own.losses[1]!]));
    });
  });
}

dawnTest(
  "memory that runs out is told as ever, and no entry point of Dawn is collected under its device",
  async () => {
    const program = ["--v8-flags=--expose-gc", "tests/gpu/dawn_checks.ts"];
    const { success, stdout, stderr } = await deno(["run", ...WITH_DAWN, ...program]);
    assert(success, stdout + stderr);
  },
);

dawnTest(
  "a run that Dawn was asked for says so, and its process may load that library alone",
  async ({ env }) => {
    const before = Object.keys(env).map((name) => [name, Deno.env.get(name)] as const);
    for (const [name, value] of Object.entries(env)) Deno.env.set(name, value);
    chooseProvider("dawn");
    try {
      await withFolder(async (folder) => {
        const entry = import.meta.resolve("./dawn_trainer.ts");
        const { run, events, supervised } = await startFake(folder, {}, { entry });
        assertEquals((await supervised.outcome).state, "succeeded");
        run.release();
        assertEquals((await readRun(run.folder)).manifest.provider, "dawn");
        const said = (code: string) =>
          events.find((event) => event.type === "warning" && event.code === code);
        assertObjectMatch(said("provider")!, { message: "dawn" });
        assertObjectMatch(said("library")!, { message: "NotCapable" });
      });
    } finally {
      chooseProvider("native");
      for (const [name, value] of before) {
        value === undefined ? Deno.env.delete(name) : Deno.env.set(name, value);
      }
    }
  },
);

Deno.test("a provider is chosen by flag, else by the environment; a name that is none is refused", async () => {
  assertEquals(readProvider("dawn", "--provider"), "dawn");
  assertThrows(
    () => readProvider("down", "--provider"),
    UsageError,
    '--provider must be native or dawn, not "down"',
  );
  chooseProvider("native");
  assertEquals(machineProvider(), "native");
  const program = `import { machineProvider } from ${
    JSON.stringify(new URL("../../src/runs/child/provider/choice.ts", import.meta.url).href)
  }; console.log(machineProvider());`;
  const told = (env: Record<string, string>) => deno(["eval", "--no-lock", program], env);
  assertEquals((await told({ LIMBECK_PROVIDER: "dawn" })).stdout.trim(), "dawn");
  assertEquals((await told({ LIMBECK_PROVIDER: "" })).stdout.trim(), "native");
  assertMatch((await told({ LIMBECK_PROVIDER: "wgpu" })).stderr, /LIMBECK_PROVIDER must be native or dawn/);
});

Deno.test("a provider that cannot be loaded is an error of the device, and no process has two", async () => {
  assertEquals(await providerNeeds("native"), { source: "", permissions: [] });
  useProvider("dawn", () => Promise.reject(new Error("no such library")));
  await assertRejects(() => openGpu(), DeviceError, `(${PACKAGE}) cannot be loaded: no such library`);
  assertThrows(() => useProvider("native", () => Promise.resolve()), DeviceError, "works with Dawn");
});
