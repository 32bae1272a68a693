/** How a model's chat template is used. */
import { z } from 'zod';
import { overrideOf } from './values.js';

export const template = z.strictObject({
  name: z.union([z.string(), z.null()]).default(null).meta({
    description: 'Which of several chat templates; null: tool_use where there are tools, else default.',
    takes: 'text or null',
  }),
  enableThinking: z
    .boolean()
    .default(false)
    .describe('The variable enable_thinking of the template (Qwen3).'),
  tools: z.array(z.record(z.string(), z.unknown())).default([]).meta({
    description: 'Tools that the template describes to the model, as JSON schemas of functions.',
    takes: 'a list of maps',
  }),
  system: z
    .enum(['template', 'user'])
    .default('template')
    .describe(
      'template: system messages are given to the template. user: their text stands before the next user message, for templates without a system role.',
    ),
  fields: z.record(z.string(), z.unknown()).default({}).describe('More variables of the template.'),
});

/** What single roles say of it. */
export const partialTemplate = overrideOf(template);

export type TemplateSettings = z.output<typeof template>;
