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
});
