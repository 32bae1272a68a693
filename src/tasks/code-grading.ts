/**
 * Runs an answer's program against the tests of its problem, in sandboxes of its own. The right results stay
 * out of the program's sandbox: results are compared here, and test code that asserts runs in a second sandbox,
 * the judge's, from which calls come through here. So a program can lie only about its own values.
 */

import { readFileSync } from 'node:fs';
import { TroupeError } from '../config/errors.js';
import { type CodeTests, sameOutput, sameValue, testCount } from './code-tests.js';
import { sandboxFile } from './sandbox/bubblewrap.js';
import { totalTime } from './sandbox/limits.js';
import { type Frame, type Json, type Sandbox, SandboxEnded, type SandboxPool } from './sandbox.js';
import type { Grade } from './types.js';

/**
 * Reasons: correct; wrong; no-answer (no program in the text); syntax-error; error (it raised an exception);
 * memory; timeout; crashed (it ended its sandbox); output-limit.
 */
type Reason = string;

const CORRECT = 'correct';

/** The status of a program that ran out of memory, from harness.py. */
const MEMORY_STATUS = 86;

/**
 * The last block of Python in a text; without one, its last block without a language; without any, the whole
 * text if it looks like a program. A block that is not closed is no answer.
 */
export function extractProgram(text: string): string | undefined {
  const blocks = [...text.matchAll(/```([^\n`]*)\n([\s\S]*?)```/g)].map(([, language = '', code = '']) => ({
    language: language.trim().toLowerCase(),
    code,
  }));
  const python = blocks.findLast(({ language }) => /^(?:python3?|py)\b/.test(language));
  const found = python ?? blocks.findLast(({ language }) => language === '');
  if (found !== undefined) return found.code.trim() === '' ? undefined : found.code;
  const bare =
    !text.includes('```') && /^\s*(?:def|class|import|from|print|for|if|while|async|@|#)/.test(text);
  return bare ? text : undefined;
}

/** Never throws for a hostile answer; throws a TroupeError if sandboxes do not start. */
export async function gradeProgram(pool: SandboxPool, text: string, tests: CodeTests): Promise<Grade> {
  const code = extractProgram(text);
  const reason = code === undefined ? 'no-answer' : await pool.run((open) => run(open, pool, code, tests));
  const correct = reason === CORRECT;
  return { correct, reward: correct ? 1 : 0, reason };
}

async function run(
  open: () => Promise<Sandbox>,
  pool: SandboxPool,
  code: string,
  tests: CodeTests,
): Promise<Reason> {
  const clock = new Clock(pool.limits.seconds * 1000, totalTime(pool.limits, testCount(tests)));
  try {
    const program = await open();
    switch (tests.style) {
      case 'stdin':
        return await runPrograms(program, clock, code, tests, pool.limits.outputMiB * 2 ** 20);
      case 'function':
        return await runFunction(program, clock, code, tests);
      case 'asserts':
        return await runAsserts(program, await open(), clock, code, tests);
    }
  } catch (error) {
    if (error instanceof SandboxEnded) return error.ending;
    // Values nested so deeply that JSON or a comparison runs out of stack.
    if (error instanceof RangeError) return 'error';
    throw error instanceof TroupeError
      ? error
      : new TroupeError('grading a program failed.', { cause: error });
  }
}

/** Time left: of one test, and of all. */
class Clock {
  readonly #each: number;
  readonly #end: number;

  constructor(each: number, total: number) {
    this.#each = each;
    this.#end = performance.now() + total;
  }

  /** Milliseconds that the next test may take. */
  next(): number {
    return Math.min(this.#each, this.rest());
  }

  rest(): number {
    return Math.max(1, this.#end - performance.now());
  }
}

async function runPrograms(
  program: Sandbox,
  clock: Clock,
  code: string,
  { cases }: Extract<CodeTests, { style: 'stdin' }>,
  most: number,
): Promise<Reason> {
  const failed = failure(await program.request({ operation: 'compile', code }, clock.next()));
  if (failed !== undefined) return failed;
  for (const { input, output } of cases) {
    const reply = await program.request({ operation: 'run', stdin: input, most }, clock.next());
    const error = failure(reply);
    if (error !== undefined) return error;
    if (reply.status === MEMORY_STATUS) return 'memory';
    const printed = String(reply.stdout);
    if (printed.length > most) return 'output-limit';
    if (reply.status !== 0) return 'error';
    if (!sameOutput(output, printed)) return 'wrong';
  }
  return CORRECT;
}

async function runFunction(
  program: Sandbox,
  clock: Clock,
  code: string,
  { name, cases }: Extract<CodeTests, { style: 'function' }>,
): Promise<Reason> {
  const failed = failure(await program.request(load(code), clock.next()));
  if (failed !== undefined) return failed;
  for (const { args, outputs } of cases) {
    const reply = await program.request({ operation: 'call', target: { name }, args }, clock.next());
    const error = failure(reply);
    if (error !== undefined) return error;
    if (!outputs.some((right) => sameValue(right, reply.value))) return 'wrong';
  }
  return CORRECT;
}

async function runAsserts(
  program: Sandbox,
  judge: Sandbox,
  clock: Clock,
  code: string,
  { code: tests, names, context }: Extract<CodeTests, { style: 'asserts' }>,
): Promise<Reason> {
  const failed = failure(await program.request(load(code, context), clock.next()));
  if (failed !== undefined) return failed;
  let frame: Frame = { operation: 'judge', prelude: file('leetcode.py'), code: tests, names };
  for (;;) {
    const said = await judge.request(frame, clock.rest());
    if (said.call === undefined)
      return said.verdict === 'correct' ? CORRECT : said.verdict === 'wrong' ? 'wrong' : 'error';
    const reply = await program.request({ operation: 'call', ...(said.call as Frame) }, clock.next());
    const error = failure(reply);
    if (error === 'memory') return error;
    frame = forwarded(reply);
  }
}

/** What of a program's reply goes to the judge. */
function forwarded({ value = null, changed = [], error }: Frame): Frame {
  return error === undefined ? { value, changed } : { error };
}

function load(code: string, context = ''): Frame {
  return { operation: 'load', prelude: `${file('imports.py')}\n${file('leetcode.py')}`, context, code };
}

const files = new Map<string, string>();

function file(name: string): string {
  const text = files.get(name) ?? readFileSync(sandboxFile(name), 'utf8');
  files.set(name, text);
  return text;
}

/** The reason in a reply that tells of an exception. */
function failure({ error }: Frame): Reason | undefined {
  if (error === undefined) return undefined;
  const { type } = (error ?? {}) as { [key: string]: Json };
  if (type === 'MemoryError') return 'memory';
  return ['SyntaxError', 'IndentationError', 'TabError'].includes(String(type)) ? 'syntax-error' : 'error';
}
