/** Of runs of several ranks. */
import { z } from 'zod';

export const distributed = z.strictObject({
  timeoutSeconds: z
    .number()
    .min(0.1)
    .max(86_400)
    .default(60)
    .describe(
      'After this time a rank that is not heard of is taken for dead, and the others end with a sentence that names it.',
    ),
  stallSeconds: z
    .number()
    .min(0.1)
    .max(86_400)
    .default(1800)
    .describe(
      'A rank whose engine has not come back for this time from one piece of its work (a decode step, a micro-batch, an ' +
        'optimizer step, loading or saving a model) is taken for hung, and ends, and the others with it.',
    ),
});
