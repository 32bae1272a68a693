/** Whether a response has the form that its workflow asks of the role, as a user's file says it. */
import { TroupeError } from '../config/errors.js';
import { shownValue } from '../config/thrown.js';
import { userError } from '../config/user-code.js';
import type { Task } from '../tasks/types.js';
import type { OpenWorkflow } from './registry.js';
import type { Workflow } from './types.js';

/** Whether a workflow asks a form of the role; one may be called `constructor`. */
export const asksForm = ({ formats }: Workflow, role: string): boolean => Object.hasOwn(formats ?? {}, role);

/** undefined: nothing is asked of the role. Throws a TroupeError where `formats` throws, or says something else. */
export function isInForm(
  open: Omit<OpenWorkflow, 'prompts'>,
  role: string,
  text: string,
  task: Task,
): boolean | undefined {
  const { workflow, options, where } = open;
  if (!asksForm(workflow, role)) return undefined;
  let formed: unknown;
  try {
    formed = workflow.formats?.[role]?.(text, { task, options });
  } catch (error) {
    throw userError(where, `formats.${role}`, error);
  }
  if (typeof formed === 'boolean') return formed;
  throw new TroupeError(`formats.${role} returned ${shownValue(formed)}; it takes true or false.`, { where });
}
