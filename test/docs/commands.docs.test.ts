/**
 * Every command that README and docs show runs, at a size that fits a test (commands.ts): `npm run test:docs`.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { packageRoot } from '../../src/config/package.js';
import { commandsIn, runsIn, SMALL } from './commands.js';
import { shownCommands } from './shown-commands.js';

const TROUPE = `node ${join(packageRoot(), 'build', 'js', 'cli', 'main.js')}`;
const folder = mkdtempSync(join(tmpdir(), 'troupe-docs-'));
const { RUN, OTHER } = runsIn(folder);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function run(command: string) {
  return spawnSync('bash', ['-c', command.replaceAll('npx troupe', TROUPE)], {
    cwd: packageRoot(),
    encoding: 'utf8',
  });
}

beforeAll(() => {
  for (const target of [RUN, OTHER]) {
    const { status, stderr } = run(`npx troupe train --set model.path=troupe-0.3m --run ${target} ${SMALL}`);
    expect(status, stderr).toBe(0);
  }
  const rows = [1, 2, 3, 4, 5, 6].map((n) => ({ question: `What is ${n} + ${n}?`, answer: `#### ${2 * n}` }));
  // Three lines of one's own are a whole configuration.
  writeFileSync(
    join(folder, 'my-run.yaml'),
    'steps: 1\nworkflow: { name: eval-opt }\nevaluation: { problems: 2 }\n',
  );
  const answer = { response: '\\boxed{4}', row: { question: 'What is 2 + 2?', answer: '4' } };
  writeFileSync(join(folder, 'answers.jsonl'), `${JSON.stringify(answer)}\n`);
  writeFileSync(join(folder, 'gsm8k-train.jsonl'), rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
});

const commands = commandsIn(folder);

const shown = [...new Set(shownCommands().map(({ command }) => command))];

test.each(shown.filter((command) => typeof commands[command] !== 'object'))('%s', (command) => {
  const how = commands[command];
  const { status, stderr } = run(how === true ? command : `${how}`);
  expect(status, stderr).toBe(0);
});
