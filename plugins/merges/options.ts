/**
 * Options that several merges have.
 *
 * @module
 */
import { z } from "zod";

/** Of a parent: how much of its change is taken. */
export const weight = z.number().default(1).describe("Factor of the parent's change");

/** Of a merge of changes. */
export const lambda = z.number().default(1).describe("Factor of what is added to the base");

/** Of a merge of changes, where the method's sum is not a mean. */
export const normalizeOff = z.boolean().default(false).describe("Divide by the sum of the weights");

/** Of a merge that elects signs, where the method takes the mean of those that agree. */
export const normalizeElected = z.boolean().default(true).describe("Divide by the weights that agree");
