/** Fails if a key has no description, or if docs/configuration-keys.md is not what the schema says. */
import { expect, test } from 'vitest';
import { runTables, sectionKeys, sectionTable } from '../../src/config/keys.js';
import { runSchema } from '../../src/config/schema.js';
import { taskSchemas } from '../../src/tasks/registry.js';
import { workflows } from '../../src/workflows/registry.js';

const HEAD = `# Keys of the configuration

Written from the schema (src/config/schema.ts) by test/config/keys.test.ts; \`npx vitest run test/config -u\` renews it.
What belongs together and why is in [configuration.md](configuration.md).

`;

const optionSchemas = workflows.flatMap(({ options }) => options ?? []);

test('every key says what it is for and what it takes', () => {
  const rows = [runSchema, ...Object.values(taskSchemas), ...optionSchemas].flatMap((schema) =>
    sectionKeys(schema),
  );
  expect(rows.length).toBeGreaterThan(50);
  expect(rows.filter(({ description }) => !/\.$/.test(description))).toEqual([]);
  expect(rows.filter(({ takes }) => takes === 'any value')).toEqual([]);
});

test('the table in the docs is up to date', async () => {
  const options = workflows.map(({ name, options: schema }) =>
    schema === undefined ? '' : sectionTable(`workflow.options of ${name}`, schema, ['workflow', 'options']),
  );
  const tasks = Object.entries(taskSchemas).map(([name, schema]) =>
    sectionTable(`task ${name}`, schema, ['task']),
  );
  const text = [HEAD + runTables(), ...tasks, ...options.filter((part) => part !== '')].join('\n');
  await expect(text).toMatchFileSnapshot('../../docs/configuration-keys.md');
});
