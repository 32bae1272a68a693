/** `task.python` is a file that makes problems where it ends in .py, and the interpreter of the code tasks where it does not. */
import { expect, test } from 'vitest';
import { loadRunConfig } from '../../src/config/load.js';
import { checkEntry } from '../../src/config/registry.js';
import { tasks } from '../../src/tasks/registry.js';

const taskOf = (...settings: string[]) => loadRunConfig('default', settings).config.task;
const check = (...settings: string[]) => checkEntry(tasks, taskOf(...settings), { path: ['task'] });

test('an interpreter leaves the task as it is', async () => {
  expect(taskOf('task.name=mini-programs', 'task.python=/usr/bin/python3')).toMatchObject({
    name: 'mini-programs',
    python: '/usr/bin/python3',
  });
  const { where, settings } = await check('task.name=mini-programs', 'task.python=/usr/bin/python3');
  expect(where).toBe('task mini-programs');
  expect(settings).toMatchObject({ python: '/usr/bin/python3' });
});

test('a file replaces the task', async () => {
  const file = 'configs/examples/reasoning.py';
  expect(taskOf('task.name=mini-programs', `task.python=${file}`)).not.toHaveProperty('levels');
  const { settings } = await check('task.name=mini-programs', `task.python=${file}`);
  expect(settings).toMatchObject({ problems: 1000, kind: 'math' });
});

test('a task without programs has no interpreter', async () => {
  await expect(check('task.name=arithmetic', 'task.python=python3')).rejects.toThrow(/python3/);
});
