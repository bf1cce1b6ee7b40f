/**
 * Keeps zod from trying whether it may make functions of text, which the page's policy forbids and a browser would complain of. It has to
 * be imported before anything that makes a schema.
 *
 * @module
 */
import { z } from "zod";

z.config({ jitless: true });
