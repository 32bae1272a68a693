/** A workflow context whose roles answer from a script, for tests of workflows without a model. */
import { fileURLToPath } from 'node:url';
import type { Problem, Task } from '../../src/tasks/types.js';
import { type OpenWorkflow, openWorkflow } from '../../src/workflows/registry.js';
import type { CallPlace, Message, WorkflowContext } from '../../src/workflows/types.js';

export const problem: Problem = { id: 'test:0', question: '3+4', answer: '7' };

/** Sums whose answer is the last number of a text. */
export const sums: Task = {
  name: 'sums',
  kind: 'math',
  train: () => problem,
  evaluation: () => [problem],
  grade: async (answers) =>
    answers.map((one) => {
      const correct = sums.extract(one.text) === one.problem.answer;
      return { correct, reward: Number(correct), reason: correct ? 'correct' : 'wrong' };
    }),
  extract: (text) => text.match(/-?\d+/g)?.at(-1),
  close: async () => {},
};

export interface Sent extends CallPlace {
  role: string;
  messages: Message[];
}

export interface Played {
  answer: string;
  sent: Sent[];
  counts: string[];
  /** Calls that the workflow could not read. */
  unread: number[];
  claims: { call: number; text: string; accepts: boolean }[];
}

/** Runs a workflow with `answer` in the place of every role's model. */
export async function play(
  open: OpenWorkflow,
  answer: (call: Sent, index: number) => string,
  given: Partial<WorkflowContext> = {},
): Promise<Played> {
  const played: Played = { answer: '', sent: [], counts: [], unread: [], claims: [] };
  const { answer: text } = await open.workflow.run({
    problem,
    task: sums,
    call: async (role, messages, place = {}) => {
      const call = played.sent.length;
      played.sent.push({ role, messages, ...place });
      return { text: answer({ role, messages, ...place }, call), finish: 'stop', call };
    },
    prompt: (name, fields) => open.prompts?.render(name, { ...problem, ...fields }) ?? [],
    count: (what) => played.counts.push(what),
    options: open.options,
    unread: (call) => played.unread.push(call),
    claim: (call, claimed, accepts = true) => played.claims.push({ call, text: claimed, accepts }),
    ...given,
  });
  return { ...played, answer: text };
}

export function open(
  name: string,
  { style = 'small', kind = 'math' as 'math' | 'code', options = {} as Record<string, unknown> } = {},
): Promise<OpenWorkflow> {
  return openWorkflow({ name, options, prompts: style }, kind);
}

/** Path of a file beside a test. */
export function beside(url: string, name: string): string {
  return fileURLToPath(new URL(name, url));
}
