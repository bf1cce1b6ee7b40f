/**
 * The WGSL of every kernel, each text once, and which lines of the templates under `kernels/` ended up in none of them.
 *
 * @module
 */
import { accessVariant, parseBindings } from "../../src/gpu/bindings.ts";
import {
  DEFAULT_DEVICE,
  type DeviceDescription,
  type KernelFamily,
  type KernelText,
} from "../../src/gpu/description.ts";
import type { Plan, Range } from "../../src/tensor/plan.ts";
import { ODD_SIZES, SIZES, syntheticModel } from "./models.ts";
import { attentionPlans, opPlan, rowLossTexts } from "./ops.ts";
import { matrixTexts, productTexts } from "./products.ts";
import { generationPlans, headPlan, subsetPlan, trainingPlans } from "./programs.ts";

const FAMILIES: Readonly<Record<KernelFamily, DeviceDescription>> = {
  tiled: { ...DEFAULT_DEVICE, maxBufferSize: 2 ** 31 - 4 },
  subgroup8: { ...DEFAULT_DEVICE, maxBufferSize: 2 ** 31 - 4, family: "subgroup8", subgroupSize: 8 },
};

/** Every kernel of both families. A text that both families share counts for the tiled one, which may assume less. */
export async function kernelTexts(): Promise<KernelText[]> {
  const texts = new Map<string, KernelText>();
  const add = ({ label, family, wgsl }: KernelText) => {
    if (!texts.has(wgsl)) texts.set(wgsl, { label: `${texts.size}: ${label}`, family, wgsl });
  };
  const addPlan = (plan: Plan, where: string) => {
    for (const { dispatches } of plan.blocks.values()) {
      for (const { kernel, wgsl, writable, writableTogether, bindings } of dispatches) {
        // As a device that has the family declares them.
        const access = plan.device.family === "subgroup8" ? writableTogether : writable;
        refuseAliases(`${kernel} (${where})`, accessVariant(wgsl, access), bindings);
        const label = `${kernel} (${where}, ${plan.device.family})`;
        add({ label, family: plan.device.family, wgsl: accessVariant(wgsl, access) });
      }
    }
  };
  const folder = await Deno.makeTempDir();
  try {
    for (const family of ["tiled", "subgroup8"] as const) {
      const device = FAMILIES[family];
      for (const [name, sizes] of Object.entries({ ...SIZES, ...ODD_SIZES })) {
        const model = await syntheticModel(`${folder}/${family} ${name}`, sizes);
        if (name in SIZES) { for (const p of trainingPlans(model, device)) addPlan(p, `training, ${name}`); }
        for (const p of generationPlans(model, device)) addPlan(p, `generation, ${name}`);
        if (name in ODD_SIZES) addPlan(subsetPlan(model, device), `subsets, ${name}`);
        model.close();
      }
      addPlan(opPlan(device), "ops");
      for (const p of attentionPlans(device)) addPlan(p, "variants of attention");
      addPlan(headPlan(device), "head");
      for (const { label, wgsl } of rowLossTexts(device)) {
        add({ label: `${label} (${family})`, family, wgsl });
      }
    }
    for (const text of [...productTexts(), ...matrixTexts()]) add(text);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  return [...texts.values()];
}

/** WebGPU forbids two writable bindings of a dispatch to overlap, and wgpu does not say so where both are only read. */
function refuseAliases(where: string, wgsl: string, ranges: readonly Range[]): void {
  const writable = parseBindings(wgsl).filter(({ group, kind }) => group === 0 && kind === "read_write");
  for (const [i, a] of writable.entries()) {
    for (const b of writable.slice(i + 1)) {
      const [p, q] = [ranges[a.binding]!, ranges[b.binding]!];
      if (p.buffer !== q.buffer || p.offset >= q.offset + q.bytes || q.offset >= p.offset + p.bytes) continue;
      throw new Error(`${where}: ${a.name} and ${b.name} are writable and overlap`);
    }
  }
}

/**
 * Lines of code of a template that are in none of the texts made from it, as `line number: line`. A text is known by the
 * template's first line, a comment that says what it computes; it may stand behind another template.
 */
export function unreachedLines(template: string, texts: readonly KernelText[]): string[] {
  const lines = template.split("\n");
  const made = new Set(
    texts.filter(({ wgsl }) => `\n${wgsl}`.includes(`\n${lines[0]}\n`)).flatMap(({ wgsl }) =>
      wgsl.split("\n")
    ),
  );
  return lines.flatMap((line, i) => {
    // Comments and directives, and lines that stand for text from elsewhere.
    if (/^\s*(\/\/|\$\w+$|$)/.test(line) || made.has(line)) return [];
    if (line.includes("$")) {
      const pattern = line.split(/\$(?:[A-Za-z]\w*|\((?:[^()]|\([^()]*\))*\))/).map(escape).join(".+?");
      const expanded = new RegExp(`^${pattern}$`);
      for (const text of made) if (expanded.test(text)) return [];
    } else if ([...made].some((text) => isAccessVariant(line, text))) return [];
    return [`${i + 1}: ${line.trim()}`];
  });
}

/** Whether a line is a template's declaration of a binding with the access the planner chose. */
function isAccessVariant(line: string, text: string): boolean {
  return text === line.replace(/(storage\s*,\s*)read(\s*>)/, "$1read_write$2");
}

function escape(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
}
