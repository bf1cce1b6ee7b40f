// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertThrows } from "@std/assert";
import { HttpError } from "../../src/server/http/http_error.ts";
import { Places } from "../../src/server/http/places.ts";
import { newToken, TokenList } from "../../src/server/auth/tokens.ts";
import { fakeNamed, until, withService } from "./harness.ts";
import { refusal } from "./small_app.ts";

Deno.test("one identity has its places, all have theirs, and what is given back twice counts once", () => {
  const places = new Places({ each: 2, all: 3, what: "cups", code: "too_many_cups" });
  const refused = (name: string) => {
    const error = assertThrows(() => places.take(name), HttpError);
    return [error.status, error.code];
  };
  const [one, _two] = [places.take("ada"), places.take("ada")];
  assertEquals(refused("ada"), [429, "too_many_cups"]);
  const other = places.take("bob");
  assertEquals([places.count, refused("bob"), refused("eve")], [3, [503, "too_many_cups"], [
    503,
    "too_many_cups",
  ]]);
  one[Symbol.dispose]();
  one[Symbol.dispose]();
  assertEquals(places.count, 2);
  places.take("ada");
  assertEquals(refused("ada"), [429, "too_many_cups"]);
  other[Symbol.dispose]();
  places.take("bob");
});

Deno.test("one identity has a hundred streams of events at most, and leaves room for others", () => {
  const [ada, bob] = [newToken("ada", "submit"), newToken("bob", "read")];
  return withService(async (test) => {
    const as = ({ secret }: typeof ada) => ({ Authorization: `Bearer ${secret}` });
    const recipe = fakeNamed({ pace: 50 }, 400);
    const { body: { id } } = await test.call("POST", "/v1/runs", { recipe }, as(ada));
    await until(test.service, id, "running");
    const follow = (who: typeof ada) =>
      test.request(`/v1/runs/${id}/events`, { headers: { ...as(who), Accept: "text/event-stream" } });
    const streams = await Promise.all(Array.from({ length: 100 }, () => follow(ada)));
    assertEquals(streams.map(({ status }) => status), Array(100).fill(200));
    const refused = await follow(ada);
    assertEquals([refused.headers.get("Retry-After"), await refusal(refused)], ["5", [
      429,
      "too_many_streams",
    ]]);
    const others = await follow(bob);
    assertEquals([others.status, test.service.streams.count], [200, 101]);
    await streams[0]!.body!.cancel();
    const again = await follow(ada);
    assertEquals(again.status, 200, "who leaves makes room");
    for (const { body } of [...streams.slice(1), others, again]) await body!.cancel();
    assertEquals(test.service.streams.count, 0);
  }, { tokens: TokenList.parse(`${ada.line}\n${bob.line}`, "tokens") });
});
