/**
 * The task that a configuration names, its settings checked: one of this program's, or a user's file. Each task
 * owns the schema of its settings; `taskSchemas` lists them for the documentation and for `troupe config`.
 */
import type { z } from 'zod';
import { checkSection, type KeyPath } from '../config/check.js';
import { importUserModule } from '../config/import-module.js';
import { unknownName } from '../config/nearest.js';
import { findPath } from '../config/package.js';
import { settled, shownFile, userError } from '../config/user-code.js';
import { arithmetic, arithmeticSchema } from './arithmetic.js';
import { code, codeSchema } from './code.js';
import { math, mathSchema } from './math.js';
import { miniPrograms, miniProgramsSchema } from './mini-programs.js';
import type { Task } from './types.js';
import { userTask } from './user-task.js';

export const taskSchemas = {
  arithmetic: arithmeticSchema,
  math: mathSchema,
  'mini-programs': miniProgramsSchema,
  code: codeSchema,
} satisfies Record<string, z.ZodType>;

export type TaskName = keyof typeof taskSchemas;

/** What each task's `kind` is. */
export const taskKinds: Record<TaskName, Task['kind']> = {
  arithmetic: 'math',
  math: 'math',
  'mini-programs': 'code',
  code: 'code',
};

/** The `task` section of a configuration: a name or a module, and the task's own settings beside it. */
export interface TaskSection {
  name?: string;
  module?: string;
  [setting: string]: unknown;
}

export interface TaskContext {
  /** A malformed data row is an error instead of being skipped. Default false. */
  strict?: boolean;
  /** Is told what was skipped, in one line. Default: standard error. */
  warn?: (message: string) => void;
  /** Where a key of the configuration was written, for errors. */
  locate?: (path: KeyPath) => string | undefined;
}

/**
 * What a user's task file exports as default: a function that makes the task from the settings beside `module`.
 * Example: `export default (settings) => ({ name: 'mine', kind: 'math', train, evaluation, … })`.
 */
export type TaskModule = (
  settings: Record<string, unknown>,
  context: Required<Pick<TaskContext, 'strict' | 'warn'>>,
) => Task | Promise<Task>;

/** The default export of a user's task file. */
export function importTask(file: string): Promise<TaskModule> {
  return importUserModule<TaskModule>(file, {
    what: 'task',
    takes: 'a function that takes the settings and returns a task',
    is: (value): value is TaskModule => typeof value === 'function',
  });
}

/** Throws a TroupeError for an unknown name, a wrong setting, a wrong module, or data that cannot be read. */
export async function createTask(section: TaskSection, context: TaskContext = {}): Promise<Task> {
  const { strict = false, warn = (message) => console.error(message), locate } = context;
  if (section.module !== undefined) {
    const make = await importTask(section.module);
    const { module: _, name: __, ...settings } = section;
    const where = shownFile(findPath(section.module));
    try {
      const made = Promise.resolve(make(settings, { strict, warn }));
      return userTask(await settled(made, { where, what: 'the task' }), where);
    } catch (error) {
      throw userError(where, 'the task', error);
    }
  }
  const name = section.name ?? 'arithmetic';
  const check = <S extends z.ZodType>(schema: S) =>
    checkSection(schema, { ...section, name }, { path: 'task', ...(locate === undefined ? {} : { locate }) });
  switch (name as TaskName) {
    case 'arithmetic':
      return arithmetic(check(arithmeticSchema));
    case 'math':
      return math(check(mathSchema), { strict, warn });
    case 'mini-programs':
      return miniPrograms(check(miniProgramsSchema));
    case 'code':
      return code(check(codeSchema), { strict, warn });
    default:
      throw unknownName('task', name, Object.keys(taskSchemas), locate?.(['task', 'name']) ?? 'task.name');
  }
}
