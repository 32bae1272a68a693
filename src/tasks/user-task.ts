/**
 * A task from a user's file, with every answer of it checked: what it throws or returns wrongly becomes one sentence
 * with the file's name, never a stack out of the middle of the program.
 */
import { TroupeError } from '../config/errors.js';
import { shownValue } from '../config/thrown.js';
import { settled, userError } from '../config/user-code.js';
import type { Grade, Problem, Task } from './types.js';

const METHODS = ['train', 'evaluation', 'grade', 'extract'] as const;

/** `where`: the file. Throws a TroupeError where the value is no task. */
export function userTask(value: unknown, where: string): Task {
  const task = (value ?? {}) as Task;
  const missing = METHODS.filter((name) => typeof task[name] !== 'function');
  if (typeof task.name !== 'string' || !['math', 'code'].includes(task.kind) || missing.length > 0) {
    throw new TroupeError(
      `made ${shownValue(value)}; a task has name, kind ('math' or 'code'), ${METHODS.join(', ')} and close.`,
      { where },
    );
  }
  const guarded = <T>(what: string, body: () => T): T => {
    try {
      return body();
    } catch (error) {
      throw userError(where, what, error);
    }
  };
  return {
    name: task.name,
    kind: task.kind,
    train: (seed, index) =>
      guarded('train', () => problemOf(task.train(seed, index), `train(${seed}, ${index})`, where)),
    evaluation: (count) =>
      guarded('evaluation', () => {
        const problems: unknown = task.evaluation(count);
        if (!Array.isArray(problems)) {
          throw new TroupeError(`evaluation returned ${shownValue(problems)}; it takes a list of problems.`, {
            where,
          });
        }
        return Array.from(problems, (problem, i) => problemOf(problem, `evaluation(${count})[${i}]`, where));
      }),
    grade: async (answers) => {
      try {
        // Its own list, to sort or empty.
        const grades = Promise.resolve(task.grade(answers.map((answer) => ({ ...answer }))));
        return gradesOf(await settled(grades, { where, what: 'grade' }), answers.length, where);
      } catch (error) {
        throw userError(where, 'grade', error);
      }
    },
    extract: (text) => {
      const found: unknown = guarded('extract', () => task.extract(text));
      if (found === undefined || typeof found === 'string') return found;
      throw new TroupeError(`extract returned ${shownValue(found)}; it takes a text or undefined.`, {
        where,
      });
    },
    ...(task.wrongAnswer !== undefined && {
      wrongAnswer: (problem: Problem, random: () => number) =>
        guarded('wrongAnswer', () => String(task.wrongAnswer?.(problem, random))),
    }),
    close: async () => {
      try {
        await settled(Promise.resolve(task.close?.()), { where, what: 'close' });
      } catch (error) {
        throw userError(where, 'close', error);
      }
    },
  };
}

function problemOf(value: unknown, call: string, where: string): Problem {
  const { id, question, answer } = (value ?? {}) as Problem;
  const right = answer === undefined || typeof answer === 'string';
  // The file may change its own object afterwards.
  if (typeof id === 'string' && typeof question === 'string' && right) return { ...(value as Problem) };
  const takes = 'a problem has the texts id and question, and answer if any';
  throw new TroupeError(`${call} returned ${shownValue(value)}; ${takes}.`, { where });
}

function gradesOf(value: unknown, count: number, where: string): Grade[] {
  if (!Array.isArray(value) || value.length !== count) {
    const got = Array.isArray(value) ? `${value.length} grades` : shownValue(value);
    throw new TroupeError(`grade returned ${got} for ${count} answers.`, { where });
  }
  for (const [i, grade] of value.entries()) {
    const { correct, reward, reason } = (grade ?? {}) as Grade;
    if (typeof correct === 'boolean' && Number.isFinite(reward) && typeof reason === 'string') continue;
    const takes = '{ correct: true or false, reward: a finite number, reason: a word }';
    throw new TroupeError(`grade returned ${shownValue(grade)} for answer ${i}; it takes ${takes}.`, {
      where,
    });
  }
  // Copies: the file may go on to write into its own.
  return value.map(({ correct, reward, reason }: Grade) => ({ correct, reward, reason }));
}
