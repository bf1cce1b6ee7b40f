// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { DeviceError } from "../../src/base/errors.ts";
import { ensureAdapter, type FoundAdapter, type Machine } from "../../src/cli/setup/setup.ts";

const LLVMPIPE: FoundAdapter = { name: "llvmpipe", software: true };

/** A machine with these programs, on which `apt-get install` works after so many tries. */
function machine(
  options: Partial<Machine> & { programs?: string[]; installAfter?: number; adapter?: boolean },
) {
  const ran: string[] = [];
  let present = options.adapter ?? false;
  let left = options.installAfter ?? 1;
  const made: Machine = {
    probe: () => Promise.resolve(present ? LLVMPIPE : undefined),
    has: (path) =>
      Promise.resolve((options.programs ?? ["/usr/bin/apt-get", "/usr/bin/dpkg"]).includes(path)),
    isLinux: true,
    isRoot: true,
    run(program, args) {
      ran.push([program, ...args].join(" "));
      const installing = args[0] === "install";
      const success = !installing || --left <= 0;
      if (installing && success) present = true;
      return Promise.resolve({ success, output: success ? "" : "line\nE: Unable to locate package" });
    },
    ...options,
  };
  return { made, ran };
}

const INSTALL = "/usr/bin/apt-get install -y --no-install-recommends mesa-vulkan-drivers";

async function attempt(options: Parameters<typeof machine>[0]) {
  const { made, ran } = machine(options);
  const said: string[] = [];
  const found = await ensureAdapter((message) => said.push(message), made);
  return { found, ran, said };
}

Deno.test("ensureAdapter() does nothing when there is an adapter", async () => {
  assertEquals(await attempt({ adapter: true }), { found: LLVMPIPE, ran: [], said: [] });
});

Deno.test("ensureAdapter() installs the software driver as root on Debian, and says so", async () => {
  const { ran, said } = await attempt({});
  assertEquals(ran, [INSTALL]);
  assertStringIncludes(said.join("\n"), "apt-get install -y mesa-vulkan-drivers");
  const updated = await attempt({ installAfter: 2 });
  assertEquals(updated.ran, [INSTALL, "/usr/bin/apt-get update", INSTALL]);
});

Deno.test("ensureAdapter() shows the command when it may not install", async () => {
  const cases: [Parameters<typeof machine>[0], string][] = [
    [{ isRoot: false }, "sudo apt-get update && sudo apt-get install -y mesa-vulkan-drivers"],
    [{ programs: ["/usr/bin/dnf"] }, "dnf install -y mesa-vulkan-drivers"],
    [{ programs: ["/usr/bin/pacman"], isRoot: false }, "sudo pacman -S vulkan-swrast"],
    [{ isLinux: false }, "limbeck doctor"],
    [{ programs: [] }, "limbeck doctor"],
  ];
  for (const [options, hint] of cases) {
    const { made, ran } = machine(options);
    const error = await assertRejects(() => ensureAdapter(() => {}, made), DeviceError);
    assertStringIncludes(error.hint!, hint);
    assertEquals(ran, []);
  }
});

Deno.test("ensureAdapter() tells what apt-get said when the installation fails", async () => {
  const { made } = machine({ installAfter: 3 });
  await assertRejects(() => ensureAdapter(() => {}, made), DeviceError, "Unable to locate package");
  const useless = machine({ probe: () => Promise.resolve(undefined) });
  await assertRejects(() => ensureAdapter(() => {}, useless.made), DeviceError, "still no GPU adapter");
});
