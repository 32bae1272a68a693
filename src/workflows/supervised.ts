/**
 * Supervised data for the roles of a workflow: runs the workflow on a problem whose answer is known, with an
 * oracle in the place of the models, and records what every role should have said. The oracle *says* a wrong
 * thing now and then, so that aggregators see wrong candidates, evaluators wrong drafts and generators rejected
 * ones, but what it *should* say is always right. Its words are the `responses` of the workflow's prompt file.
 */
import { TroupeError } from '../config/errors.js';
import type { Problem, Task } from '../tasks/types.js';
import type { OpenWorkflow } from './registry.js';
import type { CallPlace, Message } from './types.js';

/** One example: what a role reads and what it should answer. */
export interface SupervisedCall {
  role: string;
  slot: number;
  turn: number;
  messages: Message[];
  response: string;
}

export interface SupervisedOptions {
  /** Probability that a role that answers problems says a wrong answer, 0 to 1. */
  errorRate: number;
  /** Uniform in [0, 1); the only source of chance. */
  random(): number;
}

type Fields = Record<string, unknown>;

interface Candidate {
  number: number;
  answer?: string;
}

/**
 * The examples of one episode on `problem`, in the order of its calls. A role has none where no right answer
 * exists: an aggregator whose candidates are all wrong. Throws a TroupeError for a problem without an answer.
 */
export async function supervisedCalls(
  open: OpenWorkflow,
  problem: Problem,
  task: Task,
  options: SupervisedOptions,
): Promise<SupervisedCall[]> {
  const { answer } = problem;
  const { prompts, workflow } = open;
  if (answer === undefined) throw new TroupeError('has no answer to learn from.', { where: problem.id });
  if (prompts === undefined) {
    throw new TroupeError('has no prompt file, so there are no responses to learn.', {
      where: `workflow ${workflow.name}`,
    });
  }
  const { random, errorRate } = options;
  const calls: SupervisedCall[] = [];
  const asked = new Map<string, Fields>();
  let count = 0;

  const call = async (role: string, messages: Message[], place: CallPlace = {}) => {
    const fields: Fields = { ...problem, ...open.options, ...asked.get(role), answer };
    const judged = judge(asked.get(role) ?? {}, answer);
    const response = prompts.response(role, { ...fields, ...judged });
    if (judged.number !== null) {
      calls.push({ role, slot: place.slot ?? 0, turn: place.turn ?? 0, messages, response });
    }
    const wrong = random() < errorRate;
    const said = wrong
      ? prompts.response(role, { ...fields, ...judged, answer: wrongAnswer(task, problem, random) })
      : response;
    return { text: said, finish: 'stop' as const, call: count++ };
  };
  await workflow.run({
    problem,
    task,
    call,
    prompt: (name, fields = {}) => {
      asked.set(name, fields);
      const { answer: _, ...visible } = problem;
      return prompts.render(name, { ...visible, ...fields });
    },
    count: () => {},
    claim: () => {},
    unread: () => {},
    options: open.options,
  });
  return calls;
}

/** What a judging role should say of what it was shown: `right` of a draft, `number` of a right candidate. */
function judge(shown: Fields, answer: string): { right: boolean; number?: number | null } {
  const candidates = shown.candidates as Candidate[] | undefined;
  const right = shown.answer === answer;
  if (candidates === undefined) return { right };
  return { right, number: candidates.find((candidate) => candidate.answer === answer)?.number ?? null };
}

/** A wrong answer as the task makes them, else a number near the right one. */
function wrongAnswer(task: Task, problem: Problem, random: () => number): string {
  return task.wrongAnswer?.(problem, random) ?? nearNumber(problem, random);
}

/** A number near the right one: off by 1, 2 or 10, or with two digits swapped. */
export function nearNumber(problem: Problem, random: () => number): string {
  const { answer = '' } = problem;
  const value = Number(answer);
  if (answer.trim() === '' || !Number.isFinite(value)) {
    throw new TroupeError(`the answer "${answer}" is no number, so no wrong one can be made from it.`, {
      where: problem.id,
      hint: 'Give the task a method `wrongAnswer`.',
    });
  }
  const changes = [value + 1, value - 1, value + 2, value - 2, value + 10, value - 10];
  const swapped = Number(answer.replace(/(\d)(\d)$/, '$2$1'));
  if (swapped !== value) changes.push(swapped);
  const wrong = changes.filter((change) => change >= 0 || value < 0);
  return String(wrong[Math.floor(random() * wrong.length)] ?? value + 1);
}
