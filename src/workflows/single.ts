/** single: one generator, one call; its text is the answer. */
import { z } from 'zod';
import { hasAnswer } from './format.js';
import type { Workflow } from './types.js';

export const single: Workflow = {
  name: 'single',
  roles: ['generator'],
  options: z.strictObject({}),
  async run({ call, prompt, claim }) {
    const reply = await call('generator', prompt('generator'));
    claim(reply.call, reply.text);
    return { answer: reply.text };
  },
  formats: { generator: hasAnswer },
};
