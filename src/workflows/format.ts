/** Whether what a role says has the form that it was asked for. */
import type { FormatContext } from './types.js';

/** Whether a text holds an answer that the task can read: a number or a box, a program. */
export function hasAnswer(text: string, { task }: FormatContext): boolean {
  return task.extract(text) !== undefined;
}
