/**
 * The tests of a code problem. Running them is in code-grading.ts, comparing in code-values.ts and code-output.ts,
 * reading them out of data rows in code-rows.ts.
 */
import type { Json } from './sandbox.js';

/** Three styles of tests; an answer has to pass all of its problem's. */
export type CodeTests =
  /**
   * The answer is a program: it reads `input` and has to print `output`, as `checker` judges it (see
   * `Checker`); without one, as code-output.ts does.
   */
  | { style: 'stdin'; cases: { input: string; output: string }[]; checker?: Checker }
  /** The answer defines a function (or a method of `Solution`). Values as in `toChannel`. */
  | { style: 'function'; name: string; cases: { args: Json[]; outputs: Json[] }[] }
  /**
   * `code` asserts. `names` are the answer's for sure (others follow from the code), `functions` those of them that a
   * right answer defines as functions; `context` is what the question shows: imports and helpers that answer and tests
   * may use.
   */
  | { style: 'asserts'; code: string; names: string[]; functions?: string[]; context: string };

/**
 * A Python program for problems with several right outputs, as open-r1/codeforces publishes them: it is called with
 * three files (input, right output, printed output) and prints 1 if the output is right.
 */
export interface Checker {
  code: string;
}

export function testCount(tests: CodeTests): number {
  return tests.style === 'asserts' ? (tests.code.match(/^\s*assert\b/gm)?.length ?? 1) : tests.cases.length;
}
