/** Fails if a supervised start teaches other examples than its parts say, or writes other models than it was told to. */
import { existsSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { runSft } from '../../src/learning/sft.js';
import { drawExamples, openPart } from '../../src/learning/sft-examples.js';
import { sftSchema } from '../../src/learning/sft-schema.js';

function configure(voting: Record<string, unknown>, more: Record<string, unknown> = {}) {
  return sftSchema.parse({
    model: { path: 'troupe-0.3m', dtype: 'float32' },
    output: 'unused',
    callsPerStep: 8,
    data: [{ task: { name: 'arithmetic' }, workflow: { name: 'voting', prompts: 'small' }, ...voting }],
    ...more,
  });
}

async function rolesDrawn(voting: Record<string, unknown>, more: Record<string, unknown>): Promise<string[]> {
  const config = configure(voting, more);
  const parts = await Promise.all(config.data.map(openPart));
  return (await drawExamples(parts, config, 0)).map(({ role }) => role);
}

test('the same example of several voters is one, and roles that are not named are left out', async () => {
  const all = await rolesDrawn({}, { wrongContext: 0 });
  expect(all).toEqual(Array.from({ length: 4 }, () => ['generator', 'aggregator']).flat());
  const picks = await rolesDrawn({ roles: ['aggregator'] }, { wrongContext: 0.5 });
  expect(picks).toEqual(Array.from({ length: 8 }, () => 'aggregator'));
});

test('a role that there is not, and parts without examples, are errors', async () => {
  await expect(rolesDrawn({ roles: ['aggregators'] }, {})).rejects.toThrow(/aggregators.*aggregator/s);
  await expect(rolesDrawn({ roles: ['aggregator'] }, { callsPerStep: 1, wrongContext: 1 })).rejects.toThrow(
    '1000 episodes gave 0 examples',
  );
});

test('tasks are closed where something throws: a part that is wrong, or the model', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'sft-'));
  const module = join(folder, 'task.mjs');
  writeFileSync(
    module,
    `globalThis.openTasks = 0;
    export default () => {
      globalThis.openTasks += 1;
      return {
        name: 'mine', kind: 'math', train: () => ({}), evaluation: () => [], extract: () => null, grade: () => [],
        close: async () => { globalThis.openTasks -= 1; },
      };
    };`,
  );
  const open = () => (globalThis as { openTasks?: number }).openTasks;
  const part = { task: { module }, workflow: { name: 'voting', prompts: 'small' } };
  const failing = (voting: object, model = 'troupe-0.3m') =>
    runSft(configure({}, { data: [part, { ...part, ...voting }], model: { path: model } }), () => {});
  await expect(failing({ roles: ['nobody'] })).rejects.toThrow('nobody');
  expect(open()).toBe(0);
  await expect(failing({}, join(folder, 'nowhere'))).rejects.toThrow('nowhere');
  expect(open()).toBe(0);
});

test('saveEvery writes the model of those steps beside the last one', async () => {
  const output = join(mkdtempSync(join(tmpdir(), 'sft-')), 'taught');
  const losses: number[] = [];
  await runSft(configure({}, { output, steps: 3, saveEvery: 2 }), ({ loss }) => losses.push(loss));
  expect(losses).toHaveLength(3);
  expect(losses.every((loss) => loss > 0)).toBe(true);
  expect([1, 2, 3].map((step) => existsSync(`${output}-${step}`))).toEqual([false, true, false]);
});
