/**
 * Rules of a teacher that is told more than the student.
 *
 * @module
 */

/** What the rules look at. */
interface Teacher {
  readonly model: string;
  readonly privileged?: boolean | undefined;
  readonly teachers?: unknown;
  readonly align?: unknown;
  readonly cache?: unknown;
  readonly train: boolean;
  readonly stream?: boolean | undefined;
}

interface Context {
  addIssue(issue: { code: "custom"; path: PropertyKey[]; message: string }): void;
}

/** What such a teacher cannot be beside. */
export function checkPrivileged(
  { model, privileged, teachers, align, cache, train, stream }: Teacher,
  context: Context,
): void {
  if (!privileged) return;
  const because: readonly [given: unknown, why: string][] = [
    [teachers, "with several teachers, which read one stream: name one teacher"],
    [model === "server", "with a teacher behind a server, which is asked for the student's own tokens"],
    [align, "with teacher.align: leave out one of the two"],
    [
      cache,
      "with teacher.cache, which keeps what a teacher makes of the student's own tokens: leave out one of the two",
    ],
    [train, "with teacher.train, by which a teacher learns what the student reads: leave out one of the two"],
    [stream, "with teacher.stream: leave stream out"],
  ];
  for (const [given, why] of because) {
    if (given) context.addIssue({ code: "custom", path: ["privileged"], message: `cannot be had ${why}` });
  }
}

/** What a student of such a teacher cannot be, nor its data. */
export function checkBesidePrivileged(
  { privileged }: Pick<Teacher, "privileged">,
  { student, data }: {
    readonly student: { readonly shapes?: unknown };
    readonly data: { readonly tooLong: string };
  },
  wrong: (path: PropertyKey[], message: string) => void,
): void {
  if (!privileged) return;
  if (student.shapes) {
    wrong(["teacher", "privileged"], "cannot be had with student.shapes: leave out one of the two");
  }
  if (data.tooLong === "split") {
    wrong(
      ["data", "tooLong"],
      "cannot be split with teacher.privileged, whose text stands at the beginning of a sample: take cut, drop or refuse",
    );
  }
}
