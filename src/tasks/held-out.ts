/** That nothing is trained on which is held out: when two questions are the same, and the check before a run. */
import { TroupeError } from '../config/errors.js';
import type { Problem, Task } from './types.js';

/**
 * A question without what does not change it: case, white space, the marks around TeX. Two rows whose questions are the
 * same then ask the same; 1 2 is not 12, and x² not x2.
 */
export function normalQuestion(question: string): string {
  return question
    .normalize('NFC')
    .toLowerCase()
    .replace(/\$|\\[()[\],;:! ]|\\(?:left|right|displaystyle)(?![a-z])/g, ' ')
    .replace(/\s+/g, ' ')
    .replace(/ ?([^\p{L}\p{M}\p{N}\s]) ?/gu, '$1')
    .trim();
}

/** Training problems that are looked at; those of a run of the study are 32,000. */
const LOOKED_AT = 50_000;

export interface Trained {
  seed: number;
  /** Training problems of the whole run. */
  training: number;
  /** Problems of an evaluation. */
  evaluation: number;
}

/** Throws a TroupeError if a problem that the run would train on asks what one of its evaluation asks. */
export function checkHeldOut(task: Task, { seed, training, evaluation }: Trained): void {
  const held = new Map(
    task.evaluation(evaluation).map((problem) => [normalQuestion(problem.question), problem]),
  );
  if (held.size === 0) return;
  const seen = new Set<string>();
  for (let index = 0; index < Math.min(training, LOOKED_AT); index++) {
    const problem: Problem = task.train(seed, index);
    // The passes over a data set differ in order alone.
    if (seen.has(problem.id)) continue;
    seen.add(problem.id);
    const same = held.get(normalQuestion(problem.question));
    if (same !== undefined) {
      throw new TroupeError(
        `training problem ${index} (${problem.id}) asks what the held-out problem ${same.id} asks.`,
        {
          where: `task ${task.name}`,
          hint: 'What is evaluated must never be trained on: take it out of train().',
        },
      );
    }
  }
}
