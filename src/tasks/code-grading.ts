/**
 * Runs an answer's program against the tests of its problem, in sandboxes of its own. The right results stay
 * out of the program's sandbox: results are compared here, and test code that asserts runs in a second sandbox,
 * the judge's, from which each use of the program comes through here. So a program can lie only about its own
 * values.
 */
import { setTimeout as wait } from 'node:timers/promises';
import { TroupeError } from '../config/errors.js';
import { defines, extractProgram } from './code-extraction.js';
import { sameOutput } from './code-output.js';
import { type Checker, type CodeTests, testCount } from './code-tests.js';
import { sameValue } from './code-values.js';
import { totalTime } from './sandbox/limits.js';
import { type Frame, type Reply, type Sandbox, SandboxEnded, type SandboxPool } from './sandbox.js';
import type { Grade } from './types.js';

/**
 * Reasons: correct; wrong; no-answer (no program in the text); syntax-error; error (it raised an exception);
 * memory; timeout; crashed (it ended its sandbox); killed (the system did, three times); files (too many); output-limit.
 */
type Reason = string;

const CORRECT = 'correct';

/** The status of a program that ran out of memory, from program.py. */
const MEMORY_STATUS = 86;

/** That of one that was killed: by itself, or by a system that is out of memory, which takes the largest process. */
const SIGKILL_STATUS = -9;

/** How often an answer is graded whose sandbox is killed from outside, e.g. by a system that is out of memory. */
const MOST_TRIES = 3;
/** Milliseconds before that: what killed one sandbox may have killed spare ones, whose end has to be heard of first. */
const RETRY_PAUSE = 200;

/** Never throws for a hostile answer; throws a TroupeError if sandboxes do not start. */
export async function gradeProgram(pool: SandboxPool, text: string, tests: CodeTests): Promise<Grade> {
  const code = extractProgram(text, wantedBy(tests));
  const reason = code === undefined ? 'no-answer' : await triedReason(pool, code, tests);
  const correct = reason === CORRECT;
  return { correct, reward: correct ? 1 : 0, reason };
}

const READS = /\binput\(|\bstdin\b|\bopen\((?:0|'\/dev)|\bos\.read\(|\bfileinput\b/;

/** Whether code shows that it is what the tests are of. */
function wantedBy(tests: CodeTests): (code: string) => boolean {
  if (tests.style !== 'stdin') {
    const names = namesIn(tests);
    return (code) => names.some((name) => defines(code, name));
  }
  const reads = tests.cases.some(({ input }) => input.trim() !== '');
  return (code) => reads && READS.test(code);
}

/** What the tests use of the answer, as far as their text tells. */
function namesIn(tests: Exclude<CodeTests, { style: 'stdin' }>): string[] {
  if (tests.style === 'function') return [tests.name];
  if (tests.names.length > 0) return tests.names;
  return [...new Set([...tests.code.matchAll(/\b([A-Za-z_]\w*)\s*\(/g)].map(([, name = '']) => name))];
}

async function triedReason(pool: SandboxPool, code: string, tests: CodeTests): Promise<Reason> {
  for (let tries = 1; ; tries++) {
    const reason = await pool.run((open) => run(open, pool, code, tests));
    if (reason !== 'killed' || tries === MOST_TRIES) return reason;
    await wait(RETRY_PAUSE);
  }
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
      case 'stdin': {
        const checker =
          tests.checker === undefined ? undefined : await readyChecker(await open(), clock, tests.checker);
        return await runPrograms(program, checker, clock, code, tests, pool.limits.outputMiB * 2 ** 20);
      }
      case 'function':
        return await runFunction(program, clock, code, tests);
      case 'asserts':
        return await runAsserts(program, await open(), clock, code, tests);
    }
  } catch (error) {
    if (error instanceof SandboxEnded) return error.ending;
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
  checker: Sandbox | undefined,
  clock: Clock,
  code: string,
  { cases }: Extract<CodeTests, { style: 'stdin' }>,
  most: number,
): Promise<Reason> {
  const failed = failure(await program.request({ operation: 'compile', code }, clock.next()), 'loaded');
  if (failed !== undefined) return failed;
  for (const { input, output } of cases) {
    const reply = await program.request({ operation: 'run', stdin: input, most }, clock.next());
    if (reply.kind !== 'output') return failure(reply, 'output') ?? 'error';
    if (reply.status === MEMORY_STATUS) return 'memory';
    if (reply.status === SIGKILL_STATUS) return 'killed';
    if (reply.stdout.length > most) return 'output-limit';
    if (reply.status !== 0) return 'error';
    const right =
      checker === undefined
        ? sameOutput(output, reply.stdout)
        : await isChecked(checker, clock, [input, output, reply.stdout]);
    if (!right) return 'wrong';
  }
  return CORRECT;
}

/** The checker's own sandbox. Throws a TroupeError for one that is no Python. */
async function readyChecker(judge: Sandbox, clock: Clock, { code }: Checker): Promise<Sandbox> {
  const reply = await judge.request({ operation: 'compile', code }, clock.next());
  if (reply.kind === 'loaded') return judge;
  throw new TroupeError('the checker of a code problem is no Python program.', {
    hint: 'Take the row out of the data.',
  });
}

const CHECKER_FILES = ['input.txt', 'correct_output.txt', 'solution_output.txt'] as const;
/** Characters that a checker may print. */
const MOST_VERDICT = 10_000;

async function isChecked(checker: Sandbox, clock: Clock, texts: readonly string[]): Promise<boolean> {
  const files = Object.fromEntries(CHECKER_FILES.map((name, i) => [name, texts[i] ?? '']));
  const args = [...CHECKER_FILES];
  const frame = { operation: 'run', stdin: '', most: MOST_VERDICT, files, args };
  const reply = await checker.request(frame, clock.next());
  if (reply.kind === 'output' && reply.status === SIGKILL_STATUS) throw new SandboxEnded('killed');
  if (reply.kind !== 'output' || reply.status !== 0) return false;
  const said = reply.stdout.trim().split('\n').at(-1)?.trim() ?? '';
  return /^(?:1(?:\.0+)?|100(?:\.0+)?|true)$/i.test(said);
}

async function runFunction(
  program: Sandbox,
  clock: Clock,
  code: string,
  { name, cases }: Extract<CodeTests, { style: 'function' }>,
): Promise<Reason> {
  const failed = failure(await program.request({ operation: 'load', code }, clock.next()), 'loaded');
  if (failed !== undefined) return failed;
  for (const { args, outputs } of cases) {
    const frame = { operation: 'ask', what: 'call', args: [{ $name: name }, ...args] };
    const reply = await program.request(frame, clock.next());
    if (reply.kind !== 'value') return failure(reply, 'value') ?? 'error';
    if (!outputs.some((right) => sameValue(right, reply.value))) return 'wrong';
  }
  return CORRECT;
}

/** The judge runs the tests; each use of the program, and what the program asks of the tests, is passed on. */
async function runAsserts(
  program: Sandbox,
  judge: Sandbox,
  clock: Clock,
  code: string,
  { code: tests, names, functions = [], context }: Extract<CodeTests, { style: 'asserts' }>,
): Promise<Reason> {
  const load = { operation: 'load', code, context, names };
  const failed = failure(await program.request(load, clock.next()), 'loaded');
  if (failed !== undefined) return failed;
  let frame: Frame = { operation: 'judge', code: tests, names, functions, context };
  for (;;) {
    const said = await judge.request(frame, clock.next());
    if (said.kind === 'verdict') {
      return said.verdict === 'correct' ? CORRECT : said.verdict === 'wrong' ? 'wrong' : 'error';
    }
    if (said.kind !== 'ask' && said.kind !== 'returned') return 'error';
    const asked =
      said.kind === 'ask' ? { ...said.ask, operation: 'ask' } : { ...said.returned, operation: 'returned' };
    const reply = await program.request(asked, clock.next());
    if (failure(reply, 'value') === 'memory') return 'memory';
    const answer = forJudge(reply);
    if (answer === undefined) return 'error';
    frame = answer;
  }
}

/** What of a program's reply goes to the judge. */
function forJudge(reply: Reply): Frame | undefined {
  switch (reply.kind) {
    case 'value':
      return { operation: 'answer', value: reply.value, changed: reply.changed ?? [] };
    case 'error':
      return { operation: 'answer', error: { ...reply.error } };
    case 'callback':
      return { ...reply.callback, operation: 'callback' };
    default:
      return undefined;
  }
}

/** Why a reply is not of the kind that is wanted; undefined if it is. */
function failure(reply: Reply, wanted: Reply['kind']): Reason | undefined {
  if (reply.kind === wanted) return undefined;
  if (reply.kind !== 'error') return 'error';
  const { type } = reply.error;
  if (type === 'MemoryError') return 'memory';
  return ['SyntaxError', 'IndentationError', 'TabError'].includes(type) ? 'syntax-error' : 'error';
}
