/**
 * Runs on data, rewards and disks that are not right: rows are skipped and counted, or the run ends with one sentence;
 * no crash, no stack, no half-written checkpoint.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { troupe } from '../cli/troupe.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-bad-input-'));
const config = join(folder, 'run.yaml');
const rows = join(folder, 'rows.jsonl');
const good = (a: number) => JSON.stringify({ question: `${a}+1?`, answer: `#### ${a + 1}` });
let runs = 0;

beforeAll(() => {
  writeFileSync(
    config,
    `
steps: 1
model: { path: troupe-0.3m, dtype: float32 }
task: { name: math, files: [${rows}], holdout: 1 }
workflow: { name: voting, prompts: small }
rollout: { promptsPerStep: 2, episodesPerPrompt: 2, sampling: { maxTokens: 4 } }
evaluation: { every: 1, problems: 1 }
checkpoints: { every: 1 }
`,
  );
  writeFileSync(rows, [1, 2, 3].map(good).join('\n'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function train(settings: Record<string, string>, run = join(folder, `run-${runs++}`)) {
  const set = Object.entries(settings).flatMap(([key, value]) => ['--set', `${key}=${value}`]);
  const outcome = troupe(['train', config, '--run', run, ...set]);
  expect(outcome.stderr).not.toMatch(/^ {4}at /m);
  return { ...outcome, run };
}

function written(name: string, text: string): string {
  const file = join(folder, name);
  writeFileSync(file, text);
  return file;
}

it('skips bad rows, counts them, and names them by file and line', () => {
  const files = written(
    'mixed.jsonl',
    [good(1), '{"question":', good(2), '', '[1]', '{}', good(3)].join('\n'),
  );
  const { status, stderr } = train({ 'task.files': files });
  expect(status, stderr).toBe(0);
  expect(stderr).toContain('skipped 3 of 6 data rows');
  for (const where of ['mixed.jsonl:2', 'mixed.jsonl:5', 'mixed.jsonl:6']) expect(stderr).toContain(where);
});

it('ends at the first bad row where it is strict', () => {
  const files = written('strict.jsonl', [good(1), '{"question":', good(2)].join('\n'));
  const { status, stderr } = train({ 'task.files': files, strict: 'true' });
  expect(status).toBe(1);
  expect(stderr).toContain('strict.jsonl:2');
});

it('ends where no row is usable, or there is no file', () => {
  expect(train({ 'task.files': written('none.jsonl', '\n\n') }).stderr).toContain('no usable row');
  expect(train({ 'task.files': join(folder, 'missing.jsonl') }).stderr).toContain('no such data file');
});

it('goes on past a prompt that is beyond the limit', () => {
  const long = JSON.stringify({ question: '7 '.repeat(3000), answer: '#### 7' });
  const files = written('long.jsonl', [long, good(1), good(2)].join('\n'));
  const settings = { 'task.files': files, 'task.holdout': '0', 'rollout.promptsPerStep': '3' };
  const { status, stderr, run } = train(settings);
  expect(status, stderr).toBe(0);
  expect(readdirSync(join(run, 'checkpoints'))).toHaveLength(1);
});

it.each([
  ['throws', "export default () => { throw new Error('boom'); };", ': boom.'],
  ['returns NaN', 'export default (): number => Number.NaN;', 'the reward function returned NaN'],
  ['is none', 'export const reward = 1;', 'reward.ts'],
])('ends with one sentence when a reward function %s', (_what, text, message) => {
  const { status, stderr } = train({ 'learning.reward.module': written('reward.ts', text) });
  expect(status).toBe(1);
  expect(stderr).toContain(message);
});

it('goes on when a reward function fails on some calls', () => {
  const text =
    "let n = 0;\nexport default (): number => { if (n++ % 3 === 0) throw new Error('now and then'); return n % 2; };";
  const { status, stderr } = train({ 'learning.reward.module': written('some.ts', text) });
  expect(status, stderr).toBe(0);
});

/** Runs `body` in a file system of `bytes`; false where mounting is not allowed. */
function onSmallDisk(bytes: string, body: (mounted: string) => void): boolean {
  const mounted = join(folder, `disk-${bytes}`);
  mkdirSync(mounted);
  const mount = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', mounted]);
  if (mount.status !== 0) return false;
  try {
    body(mounted);
  } finally {
    spawnSync('umount', ['-l', mounted]);
  }
  return true;
}

it.each([
  ['streams', '64k', 'full'],
  ['checkpoint', '1m', 'No space left'],
])('ends with one sentence when the disk has no room for the %s', (_what, bytes, message) => {
  const tried = onSmallDisk(bytes, (disk) => {
    const { status, stderr, run } = train({}, join(disk, 'run'));
    expect(status).toBe(1);
    expect(stderr).toContain(message);
    expect(stderr).toContain(disk);
    const checkpoints = join(run, 'checkpoints');
    // Neither a checkpoint nor a part of one.
    expect(existsSync(checkpoints) ? readdirSync(checkpoints) : []).toEqual([]);
  });
  if (!tried) console.warn('not tried: mounting is not allowed here');
});
