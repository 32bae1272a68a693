/** docs/streams.md is what people read the streams by: it must say what the schemas say. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { arrowSchema, SCHEMA_VERSION } from '../../src/streams/arrow-schema.js';
import type { Specs, Table } from '../../src/streams/column-kinds.js';
import { TABLES } from '../../src/streams/tables.js';

/** The section of docs/streams.md about a table, in Markdown. */
function describeTable(table: Table<Specs>): string {
  const rows = Object.entries(table.columns).map(([column, spec]) => {
    const type = spec.nullable ? `${spec.type}, null` : spec.type;
    return `| \`${column}\` | ${type} | ${spec.unit ?? ''} | ${spec.description.replaceAll('|', '\\|')} |`;
  });
  return [
    `## ${table.name}`,
    '',
    table.description,
    '',
    '| column | type | unit | meaning |',
    '| --- | --- | --- | --- |',
    ...rows,
  ].join('\n');
}

describe('docs/streams.md', () => {
  const document = readFileSync('docs/streams.md', 'utf8');

  it.each(Object.values(TABLES))('describes the table $name column by column', (table) => {
    expect(document).toContain(describeTable(table));
  });

  it('names the version', () => {
    expect(document).toContain(`now ${SCHEMA_VERSION}.`);
  });
});

describe('schemas', () => {
  it.each(Object.values(TABLES))('of $name can be made, with a meaning for every column', (table) => {
    const schema = arrowSchema(table);
    expect(schema.fields.map((field) => field.name)).toEqual(Object.keys(table.columns));
    expect(schema.fields.every((field) => (field.metadata.get('description') ?? '').endsWith('.'))).toBe(
      true,
    );
  });

  it('keep wall-clock and memory in timings', () => {
    for (const table of Object.values(TABLES)) {
      if (table.name === 'timings') continue;
      const units = Object.values(table.columns).map((column) => (column as { unit?: string }).unit ?? '');
      expect(units.filter((unit) => /seconds|bytes/.test(unit))).toEqual([]);
    }
  });
});
