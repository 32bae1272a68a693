/** Keys of the configuration as Markdown tables, read from the schemas: docs/configuration-keys.md. */
import type { z } from 'zod';
import { runSchema } from '../../src/config/schema.js';
import { type SchemaNode, schemaNode, takes } from '../../src/config/takes.js';

interface KeyRow {
  /** Dotted. */
  key: string;
  takes: string;
  default: unknown;
  description: string;
}

/** The keys of a section in the order of its schema; maps from names of the user's own are one row. */
export function sectionKeys(schema: z.ZodType, path: string[] = []): KeyRow[] {
  return rowsOf(schemaNode(schema), path);
}

/** The tables of the run's own keys, a heading for each section. */
export function runTables(): string {
  const sections = new Map<string, KeyRow[]>();
  for (const row of sectionKeys(runSchema)) {
    const section = row.key.includes('.') ? (row.key.split('.')[0] ?? '') : '';
    sections.set(section, [...(sections.get(section) ?? []), row]);
  }
  return [...sections]
    .map(([section, rows]) => `${section === '' ? '' : `## ${section}\n\n`}${table(rows)}`)
    .join('\n');
}

/** One table under its heading, e.g. of a task's settings. Empty where there are no keys. */
export function sectionTable(heading: string, schema: z.ZodType, path: string[]): string {
  const rows = sectionKeys(schema, path);
  return rows.length === 0 ? '' : `## ${heading}\n\n${table(rows)}`;
}

function table(rows: readonly KeyRow[]): string {
  const lines = rows.map(
    (row) => `| \`${row.key}\` | ${cell(row.takes)} | ${shownDefault(row)} | ${cell(row.description)} |`,
  );
  return `| key | takes | default | |\n|---|---|---|---|\n${lines.join('\n')}\n`;
}

function rowsOf(node: SchemaNode, path: string[]): KeyRow[] {
  return Object.entries(node.properties ?? {}).flatMap(([name, child]) => {
    const key = [...path, name];
    if (child.properties !== undefined) return rowsOf(child, key);
    // A task's own name is not a choice.
    if (child.const !== undefined) return [];
    return [
      {
        key: key.join('.'),
        takes: takes(child),
        default: child.default,
        description: child.description ?? '',
      },
    ];
  });
}

function shownDefault({ default: value }: KeyRow): string {
  if (value === undefined || value === '') return '';
  return `\`${typeof value === 'string' ? value : JSON.stringify(value)}\``;
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|');
}
