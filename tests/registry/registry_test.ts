// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertNotEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { z } from "zod";
import { InputError } from "../../src/base/errors.ts";
import {
  type Adapter,
  CONTRACT_VERSION,
  defineAdapter,
  defineDivergence,
  defineFeatureLoss,
  noOptions,
  PluginError,
  tensor,
} from "../../src/registry/contract.ts";
import { pluginIdentity } from "../../src/registry/identity.ts";
import { Registry } from "../../src/registry/registry.ts";
import forwardKl from "../../plugins/losses/forward_kl.ts";
import reverseKl from "../../plugins/losses/reverse_kl.ts";
import jensenShannon from "../../plugins/losses/jensen_shannon.ts";
import pairwiseRanking from "../../plugins/losses/pairwise_ranking.ts";

const hidden = defineFeatureLoss({
  id: "test/hidden",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  options: z.strictObject({ tap: z.string().default("hidden") }),
  taps: (_, { tap }) => ({ student: [tap], teacher: [tap] }),
  program: ({ student, teacher, options: { tap } }) => tensor.subtract(student(tap), teacher(tap)),
});

function lowRank(id: string, suffix: string): Adapter {
  return defineAdapter({
    id,
    version: "1.0.0",
    contract: CONTRACT_VERSION,
    options: noOptions,
    suffixes: [suffix],
    parameters: ({ outFeatures }) => [
      { name: "bias", suffix, shape: [outFeatures], initialisation: { kind: "constant", value: 0 } },
    ],
    forward: ({ base, parameter }) => tensor.addRow(base(), parameter("bias")),
    merge: (weight) => weight,
  });
}

Deno.test("Registry.get() finds plugins of every kind by kind and id", () => {
  const adapter = lowRank("test/bias", "bias_delta");
  const registry = new Registry().addAll([forwardKl, pairwiseRanking, hidden]).add(adapter);
  assertStrictEquals(registry.get("loss", "forward-kl"), forwardKl);
  assertStrictEquals(registry.get("loss", "pairwise-ranking"), pairwiseRanking);
  assertStrictEquals(registry.get("loss", "test/hidden"), hidden);
  assertStrictEquals(registry.get("adapter", "test/bias"), adapter);
  assertEquals(registry.list().length, 4);
});

Deno.test("Registry.get() suggests the name that was meant", () => {
  const registry = new Registry().add(forwardKl).add(reverseKl);
  const error = assertThrows(
    () => registry.get("loss", "forwardkl"),
    InputError,
    "there is no loss",
  ) as InputError;
  assert(error.hint!.includes('did you mean "forward-kl"?'));
  const other = assertThrows(() => registry.get("loss", "hinge"), InputError, "forward-kl, reverse-kl");
  assert(!(other as InputError).hint!.includes("did you mean"));
  assertThrows(() => registry.get("adapter", "lora"), InputError, "there are none");
});

Deno.test("Registry.add() refuses malformed and taken ids, other contracts and shared tensor names", () => {
  const registry = new Registry().add(forwardKl).add(lowRank("test/bias", "bias_delta"));
  const refused = (plugin: Parameters<Registry["add"]>[0], why: string) =>
    assertThrows(() => registry.add(plugin), PluginError, why);
  refused({ ...reverseKl, id: "Reverse KL" }, "the id must be");
  refused({ ...reverseKl, id: "a/b/c" }, "the id must be");
  refused(forwardKl, "same id");
  refused({ ...reverseKl, contract: 2 }, "contract 2");
  refused(lowRank("test/other", "bias_delta"), '"test/bias"');
  registry.add(lowRank("test/other", "other_delta"));
});

Deno.test("Registry.options() fills defaults in and names the path of every problem", () => {
  const registry = new Registry();
  assertEquals(registry.options(jensenShannon, {}, "objective.1.options"), {
    beta: 0.5,
    normalize: false,
  });
  const error = assertThrows(
    () => registry.options(jensenShannon, { beta: 2, betta: 1 }, "objective.1.options"),
    InputError,
  ) as InputError;
  assert(error.message.includes("objective.1.options.beta"));
  assert(error.message.includes("betta"));
});

Deno.test("pluginIdentity() changes with the expression, even behind an unchanged function text", () => {
  const scaled = (factor: number) =>
    defineDivergence({
      id: "test/scaled",
      version: "1.0.0",
      contract: CONTRACT_VERSION,
      options: noOptions,
      term: ({ p, logP, logQ }) => p.mul(logP.sub(logQ)).mul(factor),
    });
  assertEquals(pluginIdentity(scaled(2)), pluginIdentity(scaled(2)));
  assertNotEquals(pluginIdentity(scaled(2)), pluginIdentity(scaled(3)));
  assertNotEquals(pluginIdentity(scaled(2)), pluginIdentity({ ...scaled(2), version: "1.0.1" }));
  assertNotEquals(
    pluginIdentity(jensenShannon, { beta: 0.1, normalize: false }),
    pluginIdentity(jensenShannon, { beta: 0.2, normalize: false }),
  );
  assertNotEquals(pluginIdentity(pairwiseRanking, { k: 3 }), pluginIdentity(pairwiseRanking, { k: 4 }));
});
