/**
 * eval-opt: the generator drafts, the evaluator accepts or rejects, the generator revises with the evaluator's
 * text before it, until a draft is accepted or the rounds are over. The last draft is the answer; nobody judges
 * the draft of the last round, because nothing would follow from it. The generator's turns are one conversation;
 * the evaluator sees the question and the newest draft.
 *
 * A verdict that says neither, or both, is counted as evaluator.unparsed and rejects.
 */
import { z } from 'zod';
import { hasAnswer } from './format.js';
import { confusion, revisions } from './oracles.js';
import { parseVerdict } from './parse-verdict.js';
import type { Message, Workflow } from './types.js';

const options = z.strictObject({
  rounds: z.int().min(1).default(3).describe('Drafts at most, the first one included.'),
});

export const evalOpt: Workflow = {
  name: 'eval-opt',
  roles: ['generator', 'evaluator'],
  options,
  async run({ task, call, prompt, claim, unread, options: given }) {
    const { rounds } = options.parse(given);
    let conversation: Message[] = prompt('generator');
    for (let turn = 0; ; turn++) {
      const draft = await call('generator', conversation, { turn });
      claim(draft.call, draft.text);
      if (turn + 1 >= rounds) return { answer: draft.text };

      const judged = { draft: draft.text, answer: task.extract(draft.text) };
      const verdict = await call('evaluator', prompt('evaluator', judged), { turn });
      const accepts = parseVerdict(verdict.text);
      if (accepts === undefined) unread(verdict.call);
      claim(verdict.call, draft.text, accepts ?? false);
      if (accepts) return { answer: draft.text };
      conversation = [
        ...conversation,
        { role: 'assistant', content: draft.text },
        ...prompt('revision', { ...judged, feedback: verdict.text }),
      ];
    }
  },
  formats: { generator: hasAnswer, evaluator: (text) => parseVerdict(text) !== undefined },
  oracles: (episodes) => [...revisions(episodes, 'generator'), ...confusion(episodes, 'evaluator')],
};
