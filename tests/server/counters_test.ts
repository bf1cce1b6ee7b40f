// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { newToken, TokenList } from "../../src/server/auth/tokens.ts";
import { withService } from "./harness.ts";

Deno.test("nobody makes /metrics grow: made-up methods are one label, and what is refused at the door is not counted", () => {
  const token = newToken("ada", "submit");
  const headers = { Authorization: `Bearer ${token.secret}` };
  return withService(async ({ request }) => {
    const counted = async () =>
      (await (await request("/metrics", { headers })).text()).split("\n")
        .filter((line) => line.startsWith("limbeck_requests_total{"));
    await counted();
    const before = await counted();
    for (let i = 0; i < 20; i++) {
      await request("/v1/runs", { method: `MADEUP${i}`, headers: { Host: "evil.example" } });
      await request(`/v1/runs?i=${i}`, { method: `UNKNOWN${i}` });
      await request(`/v1/runs/${i}`, { headers: { Authorization: "Bearer wrong" } });
      await request("/", { method: "POST", headers: { ...headers, Origin: "https://evil.example" } });
    }
    const withoutOwn = (lines: string[]) => lines.filter((line) => !line.includes('route="/metrics"'));
    assertEquals(withoutOwn(await counted()), withoutOwn(before));
    for (let i = 0; i < 20; i++) await request("/v1/runs", { method: `MADEUP${i}`, headers });
    await request("/v1/runs", { headers });
    const after = await counted();
    assert(!after.some((line) => line.includes("MADEUP")));
    assertEquals(after.filter((line) => line.includes('method="other"')).length, 1);
    assert(
      after.some((line) => line.includes('method="GET",route="/v1/runs",status="200"')),
      after.join("\n"),
    );
  }, { tokens: TokenList.parse(token.line, "tokens") });
});
