/** Limits of time in configurations. */
import { z } from 'zod';

/** A timer takes 2^31 ms at most; a longer one would ring at once. */
export const seconds = z.number().positive().max(1e6);

/** null: no limit. */
export const secondsOrNone = z.union([seconds, z.null()]);
