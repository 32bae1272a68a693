/** Fails if what a section names is made of other settings than it says, or if an override has a default of its own. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { importWithSchema } from '../../src/config/import-module.js';
import { anySettings, checkEntry, entry, openEntry, type Registry } from '../../src/config/registry.js';
import { overrideOf } from '../../src/config/schema/values.js';
import { runSchema } from '../../src/config/schema.js';
import { schemaNode } from '../../src/config/takes.js';
import { openLoss } from '../../src/learning/losses.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-registry-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function written(name: string, text: string): string {
  const file = join(folder, name);
  writeFileSync(file, text);
  return file;
}

type Shout = (text: string) => string;

const shouts: Registry<Shout, { mark: string }> = {
  what: 'shout',
  entries: {
    loud: entry(z.strictObject({ times: z.int().default(1) }), ({ times }, { mark }: { mark: string }) => {
      return (text) => text.toUpperCase() + mark.repeat(times);
    }),
  },
  fromFile: async (file) => {
    const { exported, schema = anySettings } = await importWithSchema(file, {
      what: 'shout',
      takes: 'a function',
      is: (value): value is (settings: unknown) => Shout => typeof value === 'function',
    });
    return { schema, make: exported };
  },
};

const place = {
  path: ['a', 'shout'],
  locate: (path: readonly PropertyKey[]) => `run.yaml:${path.join('.')}`,
};
const context = { mark: '!' };

describe('a section', () => {
  test('names an entry, whose settings stand beside the name with their defaults', async () => {
    expect((await openEntry(shouts, { name: 'loud' }, place, context))('hey')).toBe('HEY!');
    expect((await openEntry(shouts, { name: 'loud', times: 3 }, place, context))('hey')).toBe('HEY!!!');
    // null takes a key back to its default.
    expect((await openEntry(shouts, { name: 'loud', times: null }, place, context))('hey')).toBe('HEY!');
  });

  test('says what is wrong with a name or a setting, and where it stands', async () => {
    await expect(checkEntry(shouts, { name: 'lout' }, place)).rejects.toThrow(
      /run\.yaml:a\.shout\.name: no shout is named "lout"; there are loud\. Did you mean "loud"/,
    );
    await expect(checkEntry(shouts, { name: 'toString' }, place)).rejects.toThrow(/no shout is named/);
    await expect(checkEntry(shouts, { name: 'loud', time: 2 }, place)).rejects.toThrow(
      /run\.yaml:a\.shout\.time: unknown key "a\.shout\.time".*Did you mean "times"/,
    );
  });

  test('names a file, whose schema checks its settings as that of an entry does', async () => {
    const zod = import.meta.resolve('zod');
    const file = written(
      'quiet.mjs',
      `import { z } from '${zod}';
export const schema = z.strictObject({ by: z.int().min(1).default(2) });
export default ({ by }, { mark }) => (text) => text.slice(by) + mark;`,
    );
    expect((await openEntry(shouts, { module: file }, place, context))('hey')).toBe('y!');
    await expect(checkEntry(shouts, { module: file, by: 0 }, place)).rejects.toThrow(
      /a\.shout\.by is 0; it takes a whole number of at least 1/,
    );
    const free = written('free.mjs', 'export default (settings) => () => JSON.stringify(settings);');
    expect((await openEntry(shouts, { name: 'loud', module: free, x: 1 }, place, context))('')).toBe(
      '{"x":1}',
    );
    const odd = written('odd.mjs', 'export const schema = 3; export default () => {};');
    await expect(checkEntry(shouts, { module: odd }, place)).rejects.toThrow(/odd\.mjs: has the schema 3/);
  });

  test('of a loss has the settings of every loss, of a user’s file too', async () => {
    const zod = import.meta.resolve('zod');
    const file = written(
      'loss.mjs',
      `import { z } from '${zod}';
export const schema = z.strictObject({ tilt: z.number().default(0.5) });
export default () => undefined;`,
    );
    const loss = (more: object) => openLoss({ name: 'grpo', module: file, ...more });
    expect(await loss({ aggregation: 'constant', length: 9 })).toEqual({
      request: { module: file, options: { tilt: 0.5, aggregation: 'constant', length: 9 } },
      aggregation: 'constant',
      length: 9,
      followsAdvantage: false,
    });
    await expect(loss({ tild: 1 })).rejects.toThrow(/unknown key "learning\.loss\.tild".*"tilt"/);
    await expect(loss({ aggregation: 'mean' })).rejects.toThrow(/token, sequence or constant/);
    const text = written(
      'text.mjs',
      `export { z } from '${zod}'; import { z } from '${zod}';
export const schema = z.string(); export default () => {};`,
    );
    await expect(openLoss({ name: '', module: text })).rejects.toThrow(/not of an object/);
  });
});

describe('an override', () => {
  const inner = z.strictObject({ rank: z.int().min(1).default(4).describe('Rank.') });
  const full = z.strictObject({
    rate: z.number().default(1).describe('Rate.'),
    kind: z
      .enum(['a', 'b'])
      .transform((value) => value.toUpperCase())
      .prefault('a')
      .describe('Kind.'),
    inner: inner.prefault({}).describe('Inner.'),
    name: z.string(),
  });

  test('has the keys of its section, each optional and without a default', () => {
    const override = overrideOf(full);
    expect(override.parse({})).toEqual({});
    expect(override.parse({ kind: 'b', inner: {} })).toEqual({ kind: 'B', inner: {} });
    expect(override.parse({ inner: { rank: 2 } })).toEqual({ inner: { rank: 2 } });
    expect(() => override.parse({ inner: { rank: 0 } })).toThrow();
    expect(() => override.parse({ other: 1 })).toThrow();
  });

  test('says the same of each key', () => {
    const { properties = {} } = schemaNode(overrideOf(full));
    expect(Object.values(properties).map(({ description }) => description)).toEqual([
      'Rate.',
      'Kind.',
      'Inner.',
      undefined,
    ]);
    expect(properties.inner?.properties?.rank).toMatchObject({ description: 'Rank.', minimum: 1 });
    expect(JSON.stringify(properties)).not.toContain('default');
  });

  test('of the configuration leaves what it does not say', () => {
    const config = runSchema.parse({
      policies: { overrides: { planner: { lora: { rank: 8 } } } },
      interventions: { roles: { generator: { rate: 2 } }, policies: { shared: {} } },
      rollout: { roles: { generator: { sampling: { topK: 5 } } } },
    });
    expect(config.policies.overrides.planner).toEqual({ lora: { rank: 8 } });
    expect(config.interventions.roles.generator).toEqual({ rate: 2 });
    expect(config.interventions.policies.shared).toEqual({});
    expect(config.rollout.roles.generator).toEqual({ sampling: { topK: 5 } });
  });
});
