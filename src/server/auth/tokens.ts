/**
 * Bearer tokens: who may use a service, and for what. A token file has one token a line, hashed, so that whoever reads the file cannot
 * use it: `name scope sha256:<hex>`; `#` begins a comment.
 *
 * @module
 */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { InputError } from "../../base/errors.ts";
import { unreadable } from "../../formats/files.ts";

/** What a token allows; each scope includes those before it. `submit` controls runs of one's own, `admin` those of all. */
export const SCOPES = ["read", "submit", "admin"] as const;

/** What a token allows. */
export type Scope = typeof SCOPES[number];

/** Whoever sends a request. */
export interface Identity {
  /** Name of the token; empty where none is needed. */
  readonly name: string;
  readonly scope: Scope;
}

/** Whether an identity may do what needs a scope. */
export function isAllowed({ scope }: Identity, needed: Scope): boolean {
  return SCOPES.indexOf(scope) >= SCOPES.indexOf(needed);
}

interface KnownToken extends Identity {
  readonly hash: Uint8Array;
}

const LINE = /^([a-z0-9][a-z0-9._-]{0,63})\s+(read|submit|admin)\s+sha256:([0-9a-f]{64})$/;

/** The tokens of a service. */
export class TokenList {
  readonly #tokens: readonly KnownToken[];

  constructor(tokens: readonly KnownToken[]) {
    this.#tokens = tokens;
  }

  /** Whether there is any. */
  get isEmpty(): boolean {
    return this.#tokens.length === 0;
  }

  /**
   * Reads the text of a token file.
   *
   * @throws {InputError} no token at all, a line that is none, or a name or token that is there twice
   */
  static parse(text: string, where: string): TokenList {
    const tokens: KnownToken[] = [];
    for (const [i, line] of text.split("\n").entries()) {
      const plain = line.trim();
      if (plain === "" || plain.startsWith("#")) continue;
      const match = LINE.exec(plain);
      const at = `${where}:${i + 1}`;
      if (!match) {
        throw new InputError("is no token; expected `name scope sha256:<64 hex digits>`", {
          where: at,
          hint: `Scopes are ${SCOPES.join(", ")}; \`limbeck token NAME\` makes such a line.`,
        });
      }
      const [, name, scope, hex] = match as unknown as [string, string, Scope, string];
      if (tokens.some((token) => token.name === name)) {
        throw new InputError(`there are two tokens named ${name}`, {
          where: at,
          hint: "Give one another name.",
        });
      }
      const hash = Uint8Array.from(hex.match(/../g)!, (byte) => parseInt(byte, 16));
      const same = tokens.find((token) => timingSafeEqual(token.hash, hash));
      if (same) {
        throw new InputError(`${name} has the same token as ${same.name}`, {
          where: at,
          hint: "Which of the two sends a request could not be told. `limbeck token NAME` makes another one.",
        });
      }
      tokens.push({ name, scope, hash });
    }
    // Without any token everyone may do everything: no file that was emptied may bring that about.
    if (tokens.length === 0) {
      throw new InputError("has no tokens", {
        where,
        hint:
          "`limbeck token NAME` makes one. Without a token file, everyone on this machine may use the service.",
      });
    }
    return new TokenList(tokens);
  }

  /**
   * Reads a token file.
   *
   * @throws {InputError} it cannot be read, has no tokens, or a line of it is none
   */
  static async read(path: string): Promise<TokenList> {
    let text: string;
    try {
      text = await Deno.readTextFile(path);
    } catch (error) {
      throw unreadable(path, error);
    }
    return TokenList.parse(text, path);
  }

  /** Whose token this is. Takes as long for a wrong one as for a right one. */
  identify(secret: string): Identity | undefined {
    const hash = hashOf(secret);
    let found: KnownToken | undefined;
    // All are compared, and hashes have one length, so that the time tells nothing.
    for (const token of this.#tokens) if (timingSafeEqual(hash, token.hash)) found = token;
    return found && { name: found.name, scope: found.scope };
  }
}

/**
 * Whether others on this machine may read a token file, or write to it, which makes them its administrators. False where the system does
 * not say.
 */
export async function isOpenToOthers(path: string): Promise<boolean> {
  const { mode } = await Deno.stat(path);
  return mode !== null && (mode & 0o066) !== 0;
}

/** A new token: the secret, which is told once, and the line of a token file. */
export function newToken(name: string, scope: Scope): { secret: string; line: string } {
  const secret = `limbeck_${randomBytes(24).toString("base64url")}`;
  const line = `${name} ${scope} sha256:${hashOf(secret).toString("hex")}`;
  if (!LINE.test(line)) {
    throw new InputError(`"${name}" cannot be the name of a token`, {
      hint: "Use up to 64 small letters, digits, dots, dashes and underscores.",
    });
  }
  return { secret, line };
}

/** SHA-256 of a secret. Secrets are random, so a fast hash is enough. */
export function hashOf(secret: string) {
  return createHash("sha256").update(secret).digest();
}
