/** What README and docs show and what `npm run test:docs` runs are the same commands. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { packageRoot } from '../../src/config/package.js';
import { commandsIn } from './commands.js';
import { shownCommands } from './shown-commands.js';

const commands = commandsIn('/folder');
const shown = shownCommands();

it('every command that is shown is run by something', () => {
  const missing = shown.filter(({ command }) => !Object.hasOwn(commands, command));
  expect(missing.map(({ file, command }) => `${file}: ${command}`)).toEqual([]);
});

it('every command that is run is shown somewhere', () => {
  const known = new Set(shown.map(({ command }) => command));
  expect(Object.keys(commands).filter((command) => !known.has(command))).toEqual([]);
});

it('a command that another test runs stands there', () => {
  const elsewhere = Object.values(commands).flatMap((how) => (typeof how === 'object' ? [how] : []));
  const stands = ({ by, as }: (typeof elsewhere)[number]) => {
    const file = join(packageRoot(), by);
    return existsSync(file) && readFileSync(file, 'utf8').includes(as);
  };
  expect(elsewhere.filter((how) => !stands(how))).toEqual([]);
});
