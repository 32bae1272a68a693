/**
 * voting: several generators answer the same prompt in parallel, then the aggregator picks one by its number.
 * The chosen candidate's text is the answer.
 *
 * Fallback: a pick that names no candidate is counted as aggregator.unparsed; the answer that most candidates
 * share wins, the earlier one in a tie.
 */
import { z } from 'zod';
import type { Task } from '../tasks/types.js';
import { regret } from './oracles.js';
import { hasAnswer, parsePick } from './parse.js';
import type { Workflow } from './types.js';

const options = z.strictObject({
  voters: z.int().min(1).default(3).describe('Generators that answer in parallel.'),
});

export const voting: Workflow = {
  name: 'voting',
  roles: ['generator', 'aggregator'],
  options,
  async run({ task, call, prompt, claim, count, options: given }) {
    const { voters } = options.parse(given);
    const question = prompt('generator');
    const replies = await Promise.all(
      Array.from({ length: voters }, (_, slot) => call('generator', question, { slot })),
    );
    for (const reply of replies) claim(reply.call, reply.text);
    const texts = replies.map((reply) => reply.text);
    const candidates = texts.map((text, i) => ({ number: i + 1, text, answer: task.extract(text) }));

    const verdict = await call('aggregator', prompt('aggregator', { candidates }));
    const picked = parsePick(verdict.text, voters);
    if (picked === undefined) count('aggregator.unparsed');
    const answer = texts[(picked ?? majority(texts, task)) - 1] ?? '';
    claim(verdict.call, answer);
    return { answer };
  },
  formats: {
    generator: hasAnswer,
    aggregator: (text, { options: given }) => parsePick(text, options.parse(given).voters) !== undefined,
  },
  oracles: (episodes) => [regret(episodes, 'aggregator', 'generator')],
};

/** Number of the first text whose extracted answer most texts share; texts without an answer have no vote. */
function majority(texts: readonly string[], task: Task): number {
  const answers = texts.map((text) => task.extract(text));
  const votes = answers.map((answer) =>
    answer === undefined ? 0 : answers.filter((a) => a === answer).length,
  );
  return votes.indexOf(Math.max(...votes)) + 1;
}
