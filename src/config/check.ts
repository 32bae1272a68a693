/**
 * Checks a value against a schema and turns what is wrong into one TroupeError: which key, where it stands,
 * what it got, what it takes, and what was probably meant. Used for the run's schema and for the sections that
 * other folders own (a task's settings, a workflow's options, a loss's options).
 */
import type { z } from 'zod';
import { TroupeError } from './errors.js';
import { nestsTooDeeply } from './json.js';
import { suggestion } from './nearest.js';
import { keysOf, nodeAt, type SchemaNode, schemaNode, takes, wordsOf } from './takes.js';

export type KeyPath = readonly PropertyKey[];

export interface CheckOptions {
  /** Dotted path of the section in the configuration, e.g. "task". Empty for the whole. */
  path?: string;
  /** What the whole is called in errors; "the configuration" by default. */
  whole?: string;
  /** Where a key stands, e.g. "run.yaml:12"; undefined if nobody wrote it. */
  locate?: (path: KeyPath) => string | undefined;
}

interface Problem {
  where: string | undefined;
  message: string;
  hint: string | undefined;
}

const SHOWN = 5;

/** `value` as the schema makes it, defaults filled in. Throws a TroupeError that names every wrong key. */
export function checkSection<S extends z.ZodType>(
  schema: S,
  value: unknown,
  options: CheckOptions = {},
): z.output<S> {
  const result = schema.safeParse(value, { reportInput: true });
  if (result.success) return result.data;
  const prefix = options.path ? options.path.split('.') : [];
  const root = schemaNode(schema);
  const problems = result.error.issues.flatMap((issue) => problemsOf(issue, root, prefix, options));
  throw joined(problems, result.error);
}

function joined(problems: Problem[], cause: unknown): TroupeError {
  // Two rules may say the same of a value: a whole number, of at most so much.
  const [first, ...rest] = problems.filter(
    ({ message }, i) => problems.findIndex((problem) => problem.message === message) === i,
  );
  if (first === undefined) return new TroupeError('the configuration is not valid.', { cause });
  const details = { ...defined({ where: first.where, hint: first.hint }), cause };
  if (rest.length === 0) return new TroupeError(first.message, details);
  const lines = rest.slice(0, SHOWN - 1).map(({ where, message, hint }) => {
    return `${where === undefined ? '' : `${where}: `}${message}${hint === undefined ? '' : ` ${hint}`}`;
  });
  if (rest.length >= SHOWN) lines.push(`and ${rest.length - SHOWN + 1} more.`);
  const hint = [...(first.hint === undefined ? [] : [first.hint]), ...lines].join('\n');
  return new TroupeError(first.message, { ...details, hint: first.hint === undefined ? `\n${hint}` : hint });
}

function defined<T extends Record<string, string | undefined>>(values: T): Record<string, string> {
  return Object.fromEntries(
    Object.entries(values).filter((entry): entry is [string, string] => entry[1] !== undefined),
  );
}

function problemsOf(
  issue: z.core.$ZodIssue,
  root: SchemaNode,
  prefix: string[],
  { locate, whole = 'the configuration' }: CheckOptions,
): Problem[] {
  const path = [...prefix, ...issue.path];
  const kind = issue.code === 'invalid_union' ? issue.discriminator : undefined;
  // A union by one of its keys: the issue is at that key, its input the whole.
  const input = kind === undefined ? issue.input : (issue.input as Record<string, unknown> | null)?.[kind];
  const kinds = 'options' in issue ? (issue.options as string[] | undefined) : undefined;
  const node = kind !== undefined && kinds ? { enum: kinds } : (nodeAt(root, issue.path) ?? {});
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => unknownKey(key, path, keysOf(node), locate));
  }
  const name = dotted(path) || whole;
  const where = locate?.(path) ?? locate?.(path.slice(0, -1));
  if (issue.code === 'custom') {
    return [{ where, message: `${name} ${issue.message}`, hint: undefined }];
  }
  const got = input === undefined ? 'is missing' : `is ${shown(input)}`;
  const words = wordsOf(node);
  const wrong = [input].flat().filter((word) => typeof word === 'string' && !words.includes(word));
  const hint = wrong.map((word) => suggestion(String(word), words)).find((text) => text !== undefined);
  return [{ where, message: `${name} ${got}; it takes ${takes(node)}.`, hint }];
}

function unknownKey(key: string, path: KeyPath, known: string[], locate: CheckOptions['locate']): Problem {
  const section = path.length === 0 ? '' : ` in ${dotted(path)}`;
  const takes =
    known.length === 0 ? `there are no keys${section}` : `the keys${section} are ${known.join(', ')}`;
  return {
    where: locate?.([...path, key]) ?? locate?.(path),
    message: `unknown key "${dotted([...path, key])}"; ${takes}.`,
    hint: suggestion(key, known),
  };
}

/** a.b[2].c */
function dotted(path: KeyPath): string {
  return path.reduce<string>(
    (text, key) =>
      typeof key === 'number' ? `${text}[${key}]` : text === '' ? String(key) : `${text}.${String(key)}`,
    '',
  );
}

/** A value as a sentence quotes it: at most 80 characters. */
export function shown(value: unknown): string {
  if (nestsTooDeeply(value)) return 'a value that nests too deeply';
  const text = typeof value === 'number' ? String(value) : (JSON.stringify(value) ?? String(value));
  return text.length > 80 ? `${text.slice(0, 77)}…` : text;
}
