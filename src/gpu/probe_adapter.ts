/**
 * Prints the adapter as JSON, or `null`. A program of its own, because drivers are looked up once a process.
 *
 * @module
 */
const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
const info = adapter?.info;
const name = info && (info.description || info.device || info.vendor || "unnamed adapter");
console.log(JSON.stringify(info ? { name, software: info.isFallbackAdapter } : null));
