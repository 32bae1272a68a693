/** Fails if a key has no description, or if docs/configuration-keys.md is not what the schema says. */
import { expect, test } from 'vitest';
import type { Registry } from '../../src/config/registry.js';
import { runSchema } from '../../src/config/schema.js';
import { estimators } from '../../src/learning/estimators.js';
import { losses } from '../../src/learning/losses.js';
import { pythonSchema } from '../../src/learning/rewards/python.js';
import { rewards } from '../../src/learning/rewards.js';
import { pythonTaskSchema } from '../../src/tasks/python-task.js';
import { tasks } from '../../src/tasks/registry.js';
import { workflows } from '../../src/workflows/registry.js';
import { runTables, sectionKeys, sectionTable } from './key-tables.js';

const HEAD = `# Keys of the configuration

Written from the schema (src/config/schema.ts) by test/config/keys.test.ts; \`npx vitest run test/config -u\` renews it.
What belongs together and why is in [configuration.md](configuration.md).

`;

/** Heading and path of the settings of each entry, registry by registry. */
const SECTIONS: [registry: Pick<Registry<unknown, never>, 'entries'>, heading: string, path: string[]][] = [
  [tasks, 'task', ['task']],
  [workflows, 'workflow.options of', ['workflow', 'options']],
  [estimators, 'learning.estimator', ['learning', 'estimator']],
  [losses, 'learning.loss', ['learning', 'loss']],
  [rewards, 'an entry of learning.reward:', []],
];

const entries = SECTIONS.flatMap(([registry, heading, path]) =>
  Object.entries(registry.entries).map(([name, { schema }]) => ({
    heading: `${heading} ${name}`,
    schema,
    path,
  })),
);
entries.push(
  { heading: 'an entry of learning.reward: a Python file', schema: pythonSchema, path: [] },
  { heading: 'task of a Python file', schema: pythonTaskSchema, path: ['task'] },
);

test('every key says what it is for and what it takes', () => {
  const rows = [runSchema, ...entries.map(({ schema }) => schema)].flatMap((schema) => sectionKeys(schema));
  expect(rows.length).toBeGreaterThan(50);
  expect(rows.filter(({ description }) => !/\.$/.test(description))).toEqual([]);
  expect(rows.filter(({ takes }) => takes === 'any value')).toEqual([]);
});

test('the table in the docs is up to date', async () => {
  const tables = entries.map(({ heading, schema, path }) => sectionTable(heading, schema, path));
  const text = [HEAD + runTables(), ...tables.filter((part) => part !== '')].join('\n');
  await expect(text).toMatchFileSnapshot('../../docs/configuration-keys.md');
});
