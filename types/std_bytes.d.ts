/** What is used of `@std/fmt/bytes`. */
export function format(
  bytes: number,
  options?: { binary?: boolean; maximumFractionDigits?: number; minimumFractionDigits?: number },
): string;
