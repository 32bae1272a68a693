/**
 * Runs on data, rewards and disks that are not right: rows are skipped and counted, or the run ends with one sentence;
 * no crash, no stack, no half-written checkpoint.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { command } from '../cli/troupe.js';
import { needs } from '../needs.js';

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

async function train(settings: Record<string, string>, run = join(folder, `run-${runs++}`)) {
  const set = Object.entries(settings).flatMap(([key, value]) => ['--set', `${key}=${value}`]);
  const outcome = await command(['train', config, '--run', run, ...set]);
  expect(outcome.stderr).not.toMatch(/^ {4}at /m);
  return { ...outcome, run };
}

function written(name: string, text: string): string {
  const file = join(folder, name);
  writeFileSync(file, text);
  return file;
}

it('skips bad rows, counts them, and names them by file and line', async () => {
  const files = written(
    'mixed.jsonl',
    [good(1), '{"question":', good(2), '', '[1]', '{}', good(3)].join('\n'),
  );
  const { status, stderr } = await train({ 'task.files': files });
  expect(status, stderr).toBe(0);
  expect(stderr).toContain('skipped 3 of 6 data rows');
  for (const where of ['mixed.jsonl:2', 'mixed.jsonl:5', 'mixed.jsonl:6']) expect(stderr).toContain(where);
});

it('ends at the first bad row where it is strict', async () => {
  const files = written('strict.jsonl', [good(1), '{"question":', good(2)].join('\n'));
  const { status, stderr } = await train({ 'task.files': files, strict: 'true' });
  expect(status).toBe(1);
  expect(stderr).toContain('strict.jsonl:2');
});

it('ends where no row is usable, or there is no file', async () => {
  expect((await train({ 'task.files': written('none.jsonl', '\n\n') })).stderr).toContain('no usable row');
  expect((await train({ 'task.files': join(folder, 'missing.jsonl') })).stderr).toContain(
    'no such data file',
  );
});

it('goes on past a prompt that is beyond the limit', async () => {
  const long = JSON.stringify({ question: '7 '.repeat(3000), answer: '#### 7' });
  const files = written('long.jsonl', [long, good(1), good(2)].join('\n'));
  const settings = { 'task.files': files, 'task.holdout': '0', 'rollout.promptsPerStep': '3' };
  const { status, stderr, run } = await train(settings);
  expect(status, stderr).toBe(0);
  expect(readdirSync(join(run, 'checkpoints'))).toHaveLength(1);
});

it.each([
  ['throws', "export default () => { throw new Error('boom'); };", ': boom.'],
  ['returns NaN', 'export default (): number => Number.NaN;', 'the reward function returned NaN'],
  ['is none', 'export const reward = 1;', 'reward-is-none.ts'],
])('ends with one sentence when a reward function %s', async (what, text, message) => {
  // A file is imported once in a process.
  const name = `reward-${what.replaceAll(' ', '-')}.ts`;
  const { status, stderr } = await train({ 'learning.reward.module': written(name, text) });
  expect(status).toBe(1);
  expect(stderr).toContain(message);
});

it('goes on when a reward function fails on some calls', async () => {
  const text =
    "let n = 0;\nexport default (): number => { if (n++ % 3 === 0) throw new Error('now and then'); return n % 2; };";
  const { status, stderr } = await train({ 'learning.reward.module': written('some.ts', text) });
  expect(status, stderr).toBe(0);
});

/** Runs `body` in a file system of `bytes`. */
async function onSmallDisk(bytes: string, body: (mounted: string) => Promise<void>): Promise<void> {
  const mounted = join(folder, `disk-${bytes}`);
  mkdirSync(mounted);
  const mount = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', mounted]);
  expect(mount.status, `${mount.stderr}`).toBe(0);
  try {
    await body(mounted);
  } finally {
    spawnSync('umount', ['-l', mounted]);
  }
}

describe('a full disk', () => {
  beforeEach(needs('mount'));

  it.each([
    ['streams', '64k', 'full'],
    ['checkpoint', '1m', 'the disk is full'],
  ])('without room for the %s ends the run with one sentence', async (_what, bytes, message) => {
    await onSmallDisk(bytes, async (disk) => {
      const { status, stderr, run } = await train({}, join(disk, 'run'));
      expect(status).toBe(1);
      expect(stderr).toContain(message);
      expect(stderr).toContain(disk);
      // It has saved nothing to go on from.
      expect(stderr).toContain(`Make room, then go on: npx troupe train --resume ${run} --restart`);
      const checkpoints = join(run, 'checkpoints');
      // Neither a checkpoint nor a part of one.
      expect(existsSync(checkpoints) ? readdirSync(checkpoints) : []).toEqual([]);
    });
  });
});
