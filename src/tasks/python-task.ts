/**
 * A task from a user's Python file, which makes problems and grades answers (python-host.py): `problems(count, seed,
 * **settings)` gives a list of dicts with `question` and, if any, `answer`; `grade(problems, answers, texts, **settings)`
 * a number from 0 to 1 for each. Problems are made once, before the run; the file grades its own objects.
 */
import { basename } from 'node:path';
import { z } from 'zod';
import { TroupeError } from '../config/errors.js';
import { findPythonFile, PythonProcess } from '../config/python-process.js';
import { type Entry, entry } from '../config/registry.js';
import { secondsOrNone } from '../config/seconds.js';
import { shownFile } from '../config/user-code.js';
import { extractProgram } from './code-extraction.js';
import { extractAnswer } from './math-grading.js';
import { ShuffledOrder } from './random.js';
import type { Grade, Problem, Task, TaskContext } from './types.js';

export const pythonTaskSchema = z.strictObject({
  problems: z.int().min(1).default(1000).describe('Training problems that are made.'),
  holdout: z.int().min(0).default(200).describe('Problems beside them that are kept for evaluation.'),
  seed: z.int().min(0).default(0).describe('What the file gets as `seed`.'),
  kind: z
    .enum(['math', 'code'])
    .default('math')
    .describe(
      'Which prompts fit, and what is read as the answer: a \\boxed{} or final answer, or a program.',
    ),
  settings: z.record(z.string(), z.unknown()).default({}).describe('More keywords for its functions.'),
  seconds: secondsOrNone
    .default(300)
    .describe('Seconds that each call of a function may take; null: no limit.'),
});
type Settings = z.output<typeof pythonTaskSchema>;

/** Throws a TroupeError if the file is not there. */
export function pythonTask(python: string): Entry<Task, TaskContext> {
  const file = findPythonFile(python, 'task');
  return entry(pythonTaskSchema, (settings, context: TaskContext) => open(file, settings, context));
}

async function open(file: string, settings: Settings, { warn }: TaskContext): Promise<Task> {
  const process = new PythonProcess(file, warn);
  process.expect('problems');
  process.expect('grade');
  const { problems: training, holdout, seed, kind, seconds } = settings;
  // A process that is started again makes the same problems again.
  const made = { count: training + holdout, seed, settings: settings.settings };
  try {
    const rows = (await process.request({ do: 'problems', ...made }, { seconds })) as MadeProblem[];
    const problems = distinct(rows, file, warn);
    const held = problems.slice(problems.length - Math.min(holdout, Math.floor(problems.length / 2)));
    const train = problems.slice(0, problems.length - held.length);
    if (train.length === 0) throw new TroupeError('problems returned none.', { where: shownFile(file) });
    if (rows.length < made.count)
      warn(
        `${shownFile(file)}: problems gave ${rows.length} of the ${made.count} that it was asked for; ` +
          `${train.length} are for training, ${held.length} held out.`,
      );
    const order = new ShuffledOrder(train.length);
    const extract = kind === 'math' ? extractAnswer : (text: string) => extractProgram(text)?.trim();
    return {
      name: basename(file),
      kind,
      train: (of, index) => train[order.at(of, index)] as Problem,
      evaluation: (count) => held.slice(0, count),
      extract,
      grade: async (answers) => {
        const request = {
          do: 'grade',
          items: answers.map(({ problem }) => problem.data?.item),
          texts: answers.map(({ text }) => text),
          answers: answers.map(({ text }) => extract(text) ?? null),
          made,
        };
        const values = await process.request(request, { seconds });
        return values.map((value, i) => gradeOf(value, answers[i]?.problem.id ?? '', file));
      },
      close: () => process.close(),
    };
  } catch (error) {
    await process.close();
    throw error;
  }
}

/** As python-host.py gives it. */
interface MadeProblem {
  question: string;
  answer: string | null;
  columns: Record<string, unknown>;
}

/** The first problem with each question: none may stand on both sides. */
function distinct(rows: readonly MadeProblem[], file: string, warn: (message: string) => void): Problem[] {
  const seen = new Set<string>();
  const problems = rows.flatMap(({ question, answer, columns }, item): Problem[] => {
    if (seen.has(question)) return [];
    seen.add(question);
    const id = `${basename(file)}:${item}`;
    return [{ id, question, ...(answer === null ? {} : { answer }), data: { item }, columns }];
  });
  const twice = rows.length - problems.length;
  if (twice > 0)
    warn(`${shownFile(file)}: ${twice} of ${rows.length} problems ask what another one asks and count once.`);
  return problems;
}

function gradeOf(value: unknown, id: string, file: string): Grade {
  if (value === null) return { correct: false, reward: 0, reason: 'no-answer' };
  if (typeof value === 'number' && value >= 0 && value <= 1) {
    return {
      correct: value === 1,
      reward: value,
      reason: value === 1 ? 'correct' : value > 0 ? 'partly' : 'wrong',
    };
  }
  const got = typeof value === 'number' ? value : (value as { wrong: string }).wrong;
  throw new TroupeError(`grade returned ${got} for problem ${id}; it takes a number from 0 to 1, or None.`, {
    where: shownFile(file),
  });
}
