/** Colours as people see them: contrast, and how far apart they are for those who see no red, no green or no blue. */

type Triple = readonly [number, number, number];

/** Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of color vision deficiency", 2009, severity 1. */
const VISION: Readonly<Record<string, readonly Triple[]>> = {
  usual: [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
  protanopia: [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [
    -0.003882,
    -0.048116,
    1.051998,
  ]],
  deuteranopia: [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [
    -0.01182,
    0.04294,
    0.968881,
  ]],
  tritanopia: [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [
    0.004733,
    0.691367,
    0.3039,
  ]],
};

/** Custom properties of a style sheet that are colours, by their names, for a scheme. */
export function paletteOf(css: string, scheme: "light" | "dark"): Map<string, string> {
  const parts = css.split("@media (prefers-color-scheme: dark)");
  const texts = scheme === "light" ? [parts[0]!] : parts;
  return new Map(
    texts.flatMap((text) =>
      [...text.matchAll(/--([\w-]+): (#[\da-f]{6});/g)].map(([, name, value]) => [name!, value!] as const)
    ),
  );
}

/** Contrast of two colours such as `#24211d`, from 1 to 21 (WCAG 2.2, "contrast ratio"). */
export function contrast(a: string, b: string): number {
  const [low, high] = [a, b].map((color) => dot([0.2126, 0.7152, 0.0722], linear(color))).sort((x, y) =>
    x - y
  );
  return (high! + 0.05) / (low! + 0.05);
}

/** How far each two colours are apart in OKLab (Ottosson, 2020), by vision; white and black are 1 apart. */
export function differences(
  colors: readonly string[],
): { pair: string; vision: string; difference: number }[] {
  return Object.entries(VISION).flatMap(([vision, matrix]) => {
    const seen = colors.map((color) => oklab(times(matrix, linear(color)).map(clamped) as unknown as Triple));
    return colors.flatMap((a, i) =>
      colors.slice(i + 1).map((b, j) => ({
        pair: `${a} ${b}`,
        vision,
        difference: Math.hypot(...seen[i]!.map((value, k) => value - seen[i + 1 + j]![k]!)),
      }))
    );
  });
}

function linear(color: string): Triple {
  return [1, 3, 5].map((at) => {
    const value = parseInt(color.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  }) as unknown as Triple;
}

function oklab(rgb: Triple): Triple {
  const cones = times([
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
  ], rgb).map(Math.cbrt) as unknown as Triple;
  return times([
    [0.2104542553, 0.793617785, -0.0040720468],
    [1.9779984951, -2.428592205, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.808675766],
  ], cones);
}

function times(matrix: readonly Triple[], v: Triple): Triple {
  return matrix.map((row) => dot(row, v)) as unknown as Triple;
}

function dot(a: Triple, b: Triple): number {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

function clamped(value: number): number {
  return Math.min(1, Math.max(0, value));
}
