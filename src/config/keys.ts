/** Every key of the configuration as a Markdown table, read from the schema: docs/configuration-keys.md. */
import { runSchema } from './schema.js';
import { type SchemaNode, schemaNode, takes } from './takes.js';

export interface KeyRow {
  /** Dotted. */
  key: string;
  takes: string;
  default: unknown;
  description: string;
}

/** The keys in the order of the schema; maps from names of the user's own are one row. */
export function configKeys(): KeyRow[] {
  return rowsOf(schemaNode(runSchema), []);
}

/** The table, with a heading for each section. */
export function keysTable(): string {
  const sections = new Map<string, KeyRow[]>();
  for (const row of configKeys()) {
    const section = row.key.includes('.') ? (row.key.split('.')[0] ?? '') : '';
    sections.set(section, [...(sections.get(section) ?? []), row]);
  }
  const parts = [...sections].map(([section, rows]) => {
    const lines = rows.map(
      (row) => `| \`${row.key}\` | ${cell(row.takes)} | ${shownDefault(row)} | ${cell(row.description)} |`,
    );
    const heading = section === '' ? '' : `## ${section}\n\n`;
    return `${heading}| key | takes | default | |\n|---|---|---|---|\n${lines.join('\n')}\n`;
  });
  return parts.join('\n');
}

function rowsOf(node: SchemaNode, path: string[]): KeyRow[] {
  return Object.entries(node.properties ?? {}).flatMap(([name, child]) => {
    const key = [...path, name];
    if (child.properties !== undefined) return rowsOf(child, key);
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
