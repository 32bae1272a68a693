/**
 * voting: several generators answer the same prompt in parallel, then the aggregator picks one by its number.
 * The chosen candidate's text is the answer.
 *
 * A pick that names no candidate is counted as aggregator.unparsed. What then becomes the answer is an option:
 * nothing, so that the episode is wrong; the first candidate; or the answer that most candidates share, the
 * earlier one in a tie. A fallback that answers for the aggregator teaches it to abstain where its own picks are
 * worse (docs/lab), so that none is the default.
 */
import { z } from 'zod';
import { hasAnswer } from './format.js';
import { picks, regret } from './oracles.js';
import { parsePick } from './parse-pick.js';
import type { Workflow } from './types.js';

const options = z.strictObject({
  voters: z.int().min(1).default(3).describe('Generators that answer in parallel.'),
  unparsed: z
    .enum(['wrong', 'first', 'majority'])
    .default('wrong')
    .describe('What a pick that names no candidate gives: nothing, the first candidate, or the majority.'),
});

export const voting: Workflow = {
  name: 'voting',
  roles: ['generator', 'aggregator'],
  options,
  async run({ task, call, prompt, claim, unread, options: given }) {
    const { voters, unparsed } = options.parse(given);
    const question = prompt('generator');
    const replies = await Promise.all(
      Array.from({ length: voters }, (_, slot) => call('generator', question, { slot })),
    );
    for (const reply of replies) claim(reply.call, reply.text);
    const texts = replies.map((reply) => reply.text);
    const answers = texts.map((text) => task.extract(text));
    const votes = votesOf(answers);
    const candidates = texts.map((text, i) => ({ number: i + 1, text, answer: answers[i], votes: votes[i] }));

    const verdict = await call('aggregator', prompt('aggregator', { candidates }));
    const picked = parsePick(verdict.text, voters);
    if (picked === undefined) unread(verdict.call);
    const answer = texts[(picked ?? fallback(unparsed, votes)) - 1] ?? '';
    claim(verdict.call, answer);
    return { answer };
  },
  formats: {
    generator: hasAnswer,
    aggregator: (text, { options: given }) => parsePick(text, options.parse(given).voters) !== undefined,
  },
  oracles: (episodes) => [
    regret(episodes, 'aggregator', 'generator'),
    ...picks(episodes, 'aggregator', 'generator'),
  ],
};

/** For each answer how many are the same, itself included; 0 where there is none. */
function votesOf(answers: readonly (string | undefined)[]): number[] {
  return answers.map((answer) => (answer === undefined ? 0 : answers.filter((a) => a === answer).length));
}

/** Number of the candidate that stands for an unreadable pick; 0: none. */
function fallback(unparsed: 'wrong' | 'first' | 'majority', votes: readonly number[]): number {
  if (unparsed === 'wrong') return 0;
  return unparsed === 'first' ? 1 : votes.indexOf(Math.max(...votes)) + 1;
}
