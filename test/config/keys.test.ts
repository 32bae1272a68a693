/** Fails if a key has no description, or if docs/configuration-keys.md is not what the schema says. */
import { expect, test } from 'vitest';
import { configKeys, keysTable } from '../../src/config/keys.js';

const HEAD = `# Keys of the configuration

Written from the schema (src/config/schema.ts) by test/config/keys.test.ts; \`npx vitest run test/config -u\` renews it.
What belongs together and why is in [configuration.md](configuration.md).

`;

test('every key says what it is for and what it takes', () => {
  const rows = configKeys();
  expect(rows.length).toBeGreaterThan(50);
  expect(rows.filter(({ description }) => !/\.$/.test(description))).toEqual([]);
  expect(rows.filter(({ takes }) => takes === 'any value')).toEqual([]);
});

test('the table in the docs is up to date', async () => {
  await expect(HEAD + keysTable()).toMatchFileSnapshot('../../docs/configuration-keys.md');
});
