/** `troupe grade` and `troupe doctor` as programs read them. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { fails, json, troupe } from './troupe.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-grade-'));
const file = join(folder, 'answers.jsonl');
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const answer = (response: string) =>
  JSON.stringify({ response, row: { question: '1+1?', answer: '#### 2' } });

it('prints one verdict a line, and names the lines that it skips', async () => {
  writeFileSync(file, [answer('\\boxed{2}'), '{"response":', answer('\\boxed{3}')].join('\n'));
  const { status, stdout, stderr } = troupe(['grade', '--task', 'math', file, '--json']);
  expect(status, stderr).toBe(0);
  const verdicts = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(verdicts).toMatchObject([
    { correct: true, reason: expect.any(String), line: 1 },
    { correct: false, reason: expect.any(String), line: 3 },
  ]);
  expect(stderr).toContain('answers.jsonl:2');
  await fails(['grade', '--task', 'math', join(folder, 'none.jsonl')], ['none.jsonl', 'no such data file']);
});

it.each([
  ['no line', ''],
  ['no line of JSON', 'text\n'],
])('a file with %s gives no verdict, which is an error', async (_what, text) => {
  writeFileSync(file, text);
  await fails(['grade', '--task', 'math', file], [`${file}: holds nothing that can be graded.`]);
});

it('doctor reports memory that a machine can have', async () => {
  const { memory } = await json<{ memory: { free: number; total: number } }>(['doctor']);
  expect(memory.total).toBeLessThanOrEqual(totalmem());
  expect(memory.free).toBeLessThanOrEqual(memory.total);
});
