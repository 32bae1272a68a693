/** Whether a response has the form that its workflow asks of the role, as a user's file says it. */
import { TroupeError } from '../config/errors.js';
import { shownValue } from '../config/thrown.js';
import { userError } from '../config/user-code.js';
import type { Task } from '../tasks/types.js';
import type { OpenWorkflow } from './registry.js';

/** undefined: nothing is asked of the role. Throws a TroupeError where `formats` throws, or says something else. */
export function isInForm(
  open: Omit<OpenWorkflow, 'prompts'>,
  role: string,
  text: string,
  task: Task,
): boolean | undefined {
  const { workflow, options, where } = open;
  let formed: unknown;
  try {
    formed = workflow.formats?.[role]?.(text, { task, options });
  } catch (error) {
    throw userError(where, `formats.${role}`, error);
  }
  const asked = workflow.formats?.[role] !== undefined;
  if (typeof formed === 'boolean' || !asked) return formed as boolean | undefined;
  throw new TroupeError(`formats.${role} returned ${shownValue(formed)}; it takes true or false.`, { where });
}
