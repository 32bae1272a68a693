/** The tasks by name, each with the schema of its settings, and users' files. */
import { importWithSchema } from '../config/import-module.js';
import { findPath } from '../config/package.js';
import {
  anySettings,
  entry,
  openEntry,
  type Registry,
  type Section,
  type SectionPlace,
} from '../config/registry.js';
import { settled, shownFile, userError } from '../config/user-code.js';
import { arithmetic, arithmeticSchema } from './arithmetic.js';
import { code, codeSchema } from './code.js';
import { math, mathSchema } from './math.js';
import { miniPrograms, miniProgramsSchema } from './mini-programs.js';
import { pythonTask } from './python-task.js';
import type { Task, TaskContext } from './types.js';
import { userTask } from './user-task.js';

/**
 * What a user's task file exports as default: a function that makes the task from the settings beside `module`.
 * Example: `export default (settings) => ({ name: 'mine', kind: 'math', train, evaluation, … })`.
 */
export type TaskModule = (settings: Record<string, unknown>, context: TaskContext) => Task | Promise<Task>;

/** Of a user's task only the task itself says which kind it is. */
export const tasks: Registry<Task, TaskContext, { kind: Task['kind'] }> = {
  what: 'task',
  entries: {
    arithmetic: { ...entry(arithmeticSchema, arithmetic), kind: 'math' },
    math: { ...entry(mathSchema, math), kind: 'math' },
    'mini-programs': { ...entry(miniProgramsSchema, miniPrograms), kind: 'code' },
    code: { ...entry(codeSchema, code), kind: 'code' },
  },
  fromFile: async (file) => {
    const { exported, schema = anySettings } = await importWithSchema<TaskModule>(file, {
      what: 'task',
      takes: 'a function that takes the settings and returns a task',
      is: (value): value is TaskModule => typeof value === 'function',
    });
    const where = shownFile(findPath(file));
    const make = async (settings: unknown, context: TaskContext) => {
      try {
        const made = Promise.resolve(exported(settings as Record<string, unknown>, context));
        return userTask(await settled(made, { where, what: 'the task' }), where);
      } catch (error) {
        throw userError(where, 'the task', error);
      }
    };
    return { schema, make };
  },
  fromPython: pythonTask,
};

/** Throws a TroupeError for an unknown name, a wrong setting, a wrong module, or data that cannot be read. */
export async function createTask(
  section: Section,
  { locate, ...context }: Partial<TaskContext> & Pick<SectionPlace, 'locate'> = {},
): Promise<Task> {
  const warn = (message: string) => console.error(message);
  const made = await openEntry(
    tasks,
    section,
    { path: ['task'], locate },
    { strict: false, warn, ...context },
  );
  // Workflows get it too.
  return Object.freeze(made);
}
