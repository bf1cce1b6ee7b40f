/**
 * Makes sure there is a GPU adapter: where there is none, Mesa's software Vulkan driver is installed if we may, or the command to do so
 * is shown.
 *
 * A process reads the list of Vulkan drivers once, so each look is taken in a fresh process.
 *
 * @module
 */
import { DeviceError } from "../../base/errors.ts";
import { driverEnvironment } from "../../runs/child/command.ts";
import { exists } from "../../formats/files.ts";

/** A found adapter. */
export interface FoundAdapter {
  /** The driver's name for it. */
  name: string;
  /** Whether a CPU does the work. */
  software: boolean;
}

/** What the set-up needs of the machine; tests hand in their own. */
export interface Machine {
  probe(): Promise<FoundAdapter | undefined>;
  /** Whether a program is there. */
  has(path: string): Promise<boolean>;
  readonly isLinux: boolean;
  readonly isRoot: boolean;
  /** Runs a program; `output` is what it printed. */
  run(program: string, args: readonly string[]): Promise<{ success: boolean; output: string }>;
}

const PACKAGE = "mesa-vulkan-drivers";

/** Commands that install a software driver, by the package manager's program. */
const BY_HAND: readonly [program: string, command: string][] = [
  ["/usr/bin/apt-get", `apt-get update && apt-get install -y ${PACKAGE}`],
  ["/usr/bin/dnf", `dnf install -y ${PACKAGE}`],
  ["/usr/bin/zypper", "zypper install -y libvulkan_lvp"],
  ["/usr/bin/pacman", "pacman -S vulkan-swrast"],
  ["/sbin/apk", "apk add mesa-vulkan-swrast vulkan-loader"],
];

/**
 * Finds an adapter, installing a software driver where that is possible.
 *
 * @param say told what is done, in words
 * @throws {DeviceError} no adapter, and none could be installed; the hint has the command that would
 */
export async function ensureAdapter(
  say: (message: string) => void,
  machine: Machine = thisMachine(),
): Promise<FoundAdapter> {
  const found = await machine.probe();
  if (found) return found;
  const debian = machine.isLinux && await machine.has("/usr/bin/apt-get") &&
    await machine.has("/usr/bin/dpkg");
  if (!debian || !machine.isRoot) throw missing(await commandByHand(machine), "no GPU adapter was found");

  say(`No GPU adapter was found. Installing Mesa's software Vulkan driver: apt-get install -y ${PACKAGE}`);
  const install = ["install", "-y", "--no-install-recommends", PACKAGE];
  let result = await machine.run("/usr/bin/apt-get", install);
  if (!result.success) {
    say("Fetching the list of packages first: apt-get update");
    await machine.run("/usr/bin/apt-get", ["update"]);
    result = await machine.run("/usr/bin/apt-get", install);
  }
  if (!result.success) {
    const last = result.output.trim().split("\n").slice(-3).join("\n");
    throw missing(
      await commandByHand(machine),
      `no GPU adapter was found, and the driver could not be installed:\n${last}`,
    );
  }
  const installed = await machine.probe();
  if (!installed) throw missing(undefined, "the driver was installed, but still no GPU adapter was found");
  say(`Installed. Using ${installed.name}.`);
  return installed;
}

function missing(command: string | undefined, message: string): DeviceError {
  return new DeviceError(message, {
    hint: command
      ? `Install your GPU's Vulkan driver, or a software one: ${command}`
      : "`limbeck doctor` tells more. In a container, the GPU must be passed through.",
  });
}

async function commandByHand(machine: Machine): Promise<string | undefined> {
  if (!machine.isLinux) return undefined;
  for (const [program, command] of BY_HAND) {
    if (await machine.has(program)) return machine.isRoot ? command : command.replace(/(^|&& )/g, "$1sudo ");
  }
  return undefined;
}

/** The machine we run on. */
export function thisMachine(): Machine {
  return {
    probe: probeAdapter,
    has: (path) => exists(path),
    isLinux: Deno.build.os === "linux",
    isRoot: Deno.build.os === "linux" && Deno.uid() === 0,
    async run(program, args) {
      try {
        const { success, stdout, stderr } = await new Deno.Command(program, {
          args: [...args],
          stdin: "null",
          env: { DEBIAN_FRONTEND: "noninteractive" },
        }).output();
        const decoder = new TextDecoder();
        return { success, output: decoder.decode(stdout) + decoder.decode(stderr) };
      } catch (error) {
        return { success: false, output: (error as Error).message };
      }
    },
  };
}

async function probeAdapter(): Promise<FoundAdapter | undefined> {
  const { stdout } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--quiet",
      "--no-prompt",
      "--no-config",
      "--no-lock",
      import.meta.resolve("../../gpu/probe_adapter.ts"),
    ],
    stdin: "null",
    stderr: "null",
    env: driverEnvironment("/tmp"),
  }).output();
  try {
    return JSON.parse(new TextDecoder().decode(stdout)) ?? undefined;
  } catch {
    // It died in the driver.
    return undefined;
  }
}

/** Gives drivers the environment they want. Must come before the first look for an adapter. */
export function prepareEnvironment(): void {
  if (Deno.build.os !== "linux") return;
  for (const [name, value] of Object.entries(driverEnvironment("/tmp"))) {
    try {
      Deno.env.set(name, value);
    } catch {
      // Without the permission there are complaints, or slower drivers, no more.
    }
  }
}
