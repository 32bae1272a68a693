/** Grades episodes together: their answers, and what single calls claimed. Each text of a problem once. */
import { untilAborted } from '../config/user-code.js';
import type { Grade, Problem, Task } from '../tasks/types.js';
import type { Episode } from '../workflows/types.js';
import type { UngradedEpisode } from './episode.js';

/** Outcome of an episode that broke off: it has no answer. */
const BROKEN_OFF: Grade = { correct: false, reward: 0, reason: 'broken-off' };

/** Rejects with the signal's reason once it is aborted, whatever the grader does. */
export async function gradeEpisodes(
  episodes: readonly UngradedEpisode[],
  task: Task,
  signal?: AbortSignal,
): Promise<Episode[]> {
  const texts = new Texts();
  const answers = episodes.map(({ problem, answer, error }) =>
    error === undefined ? texts.add(problem, answer) : undefined,
  );
  const claims = episodes.map(({ problem, calls }) =>
    calls.map(({ claimed }) => (claimed === undefined ? undefined : texts.add(problem, claimed.text))),
  );
  const grades = texts.list.length === 0 ? [] : await untilAborted(task.grade(texts.list), signal);
  return episodes.map((episode, e) => ({
    ...episode,
    grade: grades[answers[e] ?? -1] ?? BROKEN_OFF,
    calls: episode.calls.map((call, c) => {
      const grade = grades[claims[e]?.[c] ?? -1];
      return grade === undefined
        ? call
        : { ...call, ownGrade: ownGrade(grade, call.claimed?.accepts ?? true) };
    }),
  }));
}

/** A call that says that a text is wrong is right if it is wrong. */
function ownGrade(grade: Grade, accepts: boolean): Grade {
  if (accepts) return grade;
  return { correct: !grade.correct, reward: grade.correct ? 0 : 1, reason: `rejected-${grade.reason}` };
}

/** Pairs of problem and text without repetitions. */
class Texts {
  readonly list: { problem: Problem; text: string }[] = [];
  readonly #indices = new Map<Problem, Map<string, number>>();

  /** Index of the pair in `list`. */
  add(problem: Problem, text: string): number {
    const ofProblem = this.#indices.get(problem) ?? new Map<string, number>();
    this.#indices.set(problem, ofProblem);
    const index = ofProblem.get(text) ?? this.list.push({ problem, text }) - 1;
    ofProblem.set(text, index);
    return index;
  }
}
