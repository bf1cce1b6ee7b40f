/** What is used of `@std/yaml`. */
export function parse(
  content: string,
  options?: { schema?: "core" | "default" | "failsafe" | "json" | "extended"; allowDuplicateKeys?: boolean },
): unknown;
export function stringify(data: unknown, options?: { lineWidth?: number; indent?: number }): string;
