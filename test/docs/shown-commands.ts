/**
 * The commands that README and docs show: lines of their sh blocks without comments, continued lines joined, and
 * `troupe COMMAND ARGUMENTS` within the text.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../src/config/package.js';

export interface ShownCommand {
  /** File that shows it, e.g. "docs/first-run.md". */
  file: string;
  command: string;
}

export function shownCommands(): ShownCommand[] {
  const docs = readdirSync(join(packageRoot(), 'docs'), { recursive: true }).map((name) =>
    join('docs', `${name}`),
  );
  const files = ['README.md', ...docs.filter((name) => name.endsWith('.md')).sort()];
  return files.flatMap((file) =>
    commandsOf(readFileSync(join(packageRoot(), file), 'utf8')).map((command) => ({ file, command })),
  );
}

function commandsOf(markdown: string): string[] {
  const inText = markdown
    .replaceAll(/```.*?```/gs, '')
    .matchAll(/`(?:npx )?(troupe [\w-]+\s[^`]+|(?<=npx )troupe [\w-]+)`/g);
  return [
    ...blocksOf(markdown),
    ...[...inText].map(([, command = '']) => `npx ${command.replaceAll(/\s+/g, ' ')}`),
  ];
}

function blocksOf(markdown: string): string[] {
  return [...markdown.matchAll(/```sh\n(.*?)```/gs)].flatMap(([, block = '']) =>
    block
      .replaceAll(/\\\n\s*/g, '')
      .split('\n')
      .map((line) => line.replace(/(^|\s)#.*$/, '').trim())
      .filter((line) => line !== ''),
  );
}
