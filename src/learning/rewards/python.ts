/**
 * A reward function from a user's Python file, with the signature that TRL's GRPOTrainer calls (1.13,
 * `_calculate_rewards`): keywords prompts, completions, completion_ids, the columns of the data row and trainer_state,
 * each a list with one entry for each call; a list of numbers or None comes back. All calls of a step are one batch.
 */
import { z } from 'zod';
import { TroupeError } from '../../config/errors.js';
import { findPythonFile, PythonError, PythonProcess } from '../../config/python-process.js';
import { type Entry, entry } from '../../config/registry.js';
import { secondsOrNone } from '../../config/seconds.js';
import { shownFile } from '../../config/user-code.js';
import {
  type CallToReward,
  callName,
  common,
  type RewardContext,
  type RewardSource,
  type RewardTime,
} from './types.js';

/** Columns that TRL does not pass on under their own name. */
const TAKEN = new Set(['prompt', 'completion', 'completion_ids', 'prompts', 'completions', 'trainer_state']);

export const pythonSchema = z.strictObject({
  function: z.string().min(1).describe('Its function, which has the signature of TRL.'),
  format: z
    .enum(['messages', 'text'])
    .default('messages')
    .describe('How it gets prompts and completions: lists of messages, or texts.'),
  seconds: secondsOrNone
    .default(300)
    .describe('Seconds that it may take for the calls of a step; null: no limit.'),
  ...common,
});
type Settings = z.output<typeof pythonSchema>;

/** Throws a TroupeError if the file is not there. Python starts with `start`, or when it is first asked. */
export function pythonReward(python: string): Entry<RewardSource, RewardContext> {
  const file = findPythonFile(python, 'reward');
  return entry(pythonSchema, ({ function: name, format, seconds }, { warn, processes }: RewardContext) => {
    const process = processes.get(file) ?? new PythonProcess(file, warn);
    processes.set(file, process);
    process.expect(name);
    return {
      label: name,
      start: () => process.start(),
      close: () => process.close(),
      values: async (calls, time) => {
        const request = { do: 'reward', function: name, keywords: keywordsOf(calls, time, format) };
        try {
          const values = await process.request(request, { seconds, signal: time.signal });
          return calls.map((one, i) => said(values[i], one, { name, file }));
        } catch (error) {
          if (error instanceof PythonError) return calls.map(() => error);
          throw error;
        }
      },
    };
  });
}

function said(value: unknown, one: CallToReward, { name, file }: { name: string; file: string }) {
  if (value === null || typeof value === 'number') return value;
  const { wrong } = value as { wrong: string };
  const got = `${name} returned ${wrong} for ${callName(one)}`;
  return new TroupeError(`${got}; it takes a finite number or None.`, { where: shownFile(file) });
}

/** What the function gets. Of this program's own columns a row's column of the same name wins. */
function keywordsOf(
  calls: readonly CallToReward[],
  { step, steps }: RewardTime,
  format: Settings['format'],
): Record<string, unknown> {
  const rows = calls.map(rowOf);
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))].filter((name) => !TAKEN.has(name));
  const columns = names.map((name) => [name, rows.map((row) => row[name] ?? null)]);
  const asText = format === 'text';
  return {
    ...Object.fromEntries(columns),
    prompts: calls.map(({ call: { messages } }) =>
      asText ? messages.map(({ content }) => content).join('\n\n') : messages,
    ),
    completions: calls.map(({ call: { text } }) => (asText ? text : [{ role: 'assistant', content: text }])),
    completion_ids: calls.map(({ call }) => Array.from(call.completion.ids)),
    trainer_state: { global_step: step, max_steps: steps },
  };
}

function rowOf({ episode: { problem, grade }, call }: CallToReward): Record<string, unknown> {
  const { id, question, answer, columns } = problem;
  const { role, slot, turn, unread = false, ownGrade } = call;
  const own = { correct: ownGrade?.correct ?? grade.correct, outcome: grade.reward };
  return { id, question, answer, role, slot, turn, unread, ...own, ...columns };
}
