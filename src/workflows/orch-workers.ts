/**
 * orch-workers: the orchestrator names strategies, each worker solves the whole problem by one of them, the
 * synthesizer reads their solutions and answers. Strategies beyond the number of workers are dropped.
 *
 * Fallback: an orchestrator's text without strategies is counted as orchestrator.unparsed; all workers then get
 * the text of the template `fallback`.
 */
import { z } from 'zod';
import { hasAnswer } from './format.js';
import { distinctStrategies, regret } from './oracles.js';
import { parseStrategies } from './parse-strategies.js';
import type { Workflow } from './types.js';

const options = z.strictObject({
  workers: z.int().min(1).default(3).describe('Workers at most, one for each strategy.'),
});

export const orchWorkers: Workflow = {
  name: 'orch-workers',
  roles: ['orchestrator', 'worker', 'synthesizer'],
  options,
  async run({ task, call, prompt, claim, unread, options: given }) {
    const { workers } = options.parse(given);
    const plan = await call('orchestrator', prompt('orchestrator', { workers }));
    let strategies = parseStrategies(plan.text).slice(0, workers);
    if (strategies.length === 0) {
      unread(plan.call);
      const fallback = prompt('fallback')[0]?.content ?? '';
      strategies = Array.from({ length: workers }, () => fallback);
    }

    const replies = await Promise.all(
      strategies.map((strategy, slot) => call('worker', prompt('worker', { strategy }), { slot })),
    );
    const solutions = replies.map(({ call: index, text }, i) => {
      claim(index, text);
      return { number: i + 1, strategy: strategies[i], text, answer: task.extract(text) };
    });

    const final = await call('synthesizer', prompt('synthesizer', { solutions }));
    claim(final.call, final.text);
    return { answer: final.text };
  },
  formats: {
    orchestrator: (text) => parseStrategies(text).length > 0,
    worker: hasAnswer,
    synthesizer: hasAnswer,
  },
  oracles: (episodes, given) => [
    distinctStrategies(episodes, 'orchestrator', options.parse(given).workers),
    regret(episodes, 'synthesizer', 'worker'),
  ],
};
