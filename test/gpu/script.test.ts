/** What bench/gpu/run.sh leaves behind: the summary's verdicts, and a row for every case of the peer however one ends. */
import { spawnSync } from 'node:child_process';
import { accessSync, constants, cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/config/package.js';

const bench = join(packageRoot(), 'bench', 'gpu');
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'troupe-gpu-script-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const write = (name: string, rows: readonly object[]) =>
  writeFileSync(join(folder, name), rows.map((row) => `${JSON.stringify(row)}\n`).join(''));

function output(program: string, args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  expect(status, stderr).toBe(0);
  return stdout;
}

describe('the summary', () => {
  const summary = () => output(process.execPath, [join(bench, 'tables.mjs'), folder]).split('\n');

  it('says of each part how it ended, and of each target whether it was met', () => {
    write('parts.jsonl', [
      { part: 'kernels', status: 0, seconds: 40, limit: 120 },
      { part: 'tests', status: 1, seconds: 90, limit: 150 },
      { part: 'troupe', status: 124, seconds: 30, limit: 30 },
    ]);
    const rate = { tokens_per_second: 1, flops_per_second: 1 };
    write('troupe.jsonl', [
      { case: 'rates', gemm_flops: 1, copy_bytes: 100 },
      { case: 'train:4b:r16:8192', ...rate, tokens_per_second: 12_500 },
      { case: 'train:0.6b:full:8192', error: 'Error: memory' },
      { case: 'decode:4b:256', step_seconds: 2, tokens_per_second: 128, bytes_a_step: 138 },
      { case: 'observer:4b:r16', off: { seconds: 1 }, exact: { seconds: 1.02 } },
      { case: 'observer:0.6b:full', off: { seconds: 1 }, exact: { seconds: 1.04 } },
      { case: 'voting:4b:r16:4', seconds: 2, generation: 1, training: 1 },
    ]);
    write('peer.jsonl', [{ case: 'voting:4b:r16:4', seconds: 22 }]);
    const lines = summary();
    expect(lines).toEqual(
      expect.arrayContaining([
        '| kernels | 40 s | ended well |',
        '| tests | 90 s | **failed**, status 1 |',
        '| troupe | 30 s | stopped after 30 s |',
        '| 4B LoRA training, tokens/s | ≥ 12500 | 12500.0 | met |',
        '| 0.6B full training, tokens/s | ≥ 60000 | – | not measured |',
        '| decoding at 256 sequences, % of the memory roofline (4B) | ≥ 70 | 69.0 | **missed** |',
        '| observer, % of the training part (4B LoRA) | ≤ 3 | 2.0 | met |',
        '| observer, % of the training part (0.6B full) | ≤ 3 | 4.0 | **missed** |',
        '| Voting step of 4B LoRA, times transformers + PEFT | ≥ 10 | 11.0 | met |',
      ]),
    );
  });

  it('of nothing is that nothing was measured', () => {
    const targets = summary().filter((line) => /[≥≤]/.test(line));
    expect(targets).toHaveLength(6);
    expect(targets.filter((line) => !line.endsWith('| – | not measured |'))).toEqual([]);
  });
});

it('calls programs that may be run', () => {
  const script = readFileSync(join(bench, 'run.sh'), 'utf8');
  const called = [...script.matchAll(/^ *part \w+ \d+ (\S+\.sh)/gm)].map(([, file = '']) => file);
  expect(called).toEqual(['test/kernels/cuda/run_on_gpu.sh', 'bench/gpu/kernel_times.sh']);
  for (const file of called) accessSync(join(packageRoot(), file), constants.X_OK);
});

it('compares no steps that computed unlike numbers of rows', () => {
  const of = (rows: number, seconds: number) => ({ rows, seconds });
  write('troupe.jsonl', [
    { case: 'observer:4b:r16', off: of(500, 1), exact: of(500, 1.02) },
    { case: 'observer:0.6b:full', off: of(555, 1), exact: of(500, 0.98), sketch: of(500, 1.5) },
  ]);
  const lines = output(process.execPath, [join(bench, 'tables.mjs'), folder]).split('\n');
  expect(lines).toEqual(
    expect.arrayContaining([
      '| observer, % of the training part (0.6B full) | ≤ 3 | – | not measured |',
      '| 4b:r16 | 500 | 1.000 | 1.020 | 2.0 % | – |',
      '| 0.6b:full | 500 | 1.000 | 0.980 | **not comparable**: off has 555 rows | 1.500 |',
    ]),
  );
});

describe('the peer', () => {
  /** Rows of peer.py over cases that end as their names say. */
  function rows(until: number, ...cases: string[]) {
    cpSync(join(bench, 'peer.py'), join(folder, 'peer.py'));
    writeFileSync(
      join(folder, 'peer_cases.py'),
      `import json, os, sys, time
for case in sys.argv[1:-2]:
    if case == "crashes":
        os.abort()
    if case == "hangs":
        time.sleep(60)
    print(json.dumps({"case": case, "process": os.getpid()}), flush=True)
    if case == "loses the device":
        os._exit(3)
`,
    );
    const out = join(folder, 'peer.jsonl');
    const args = [join(folder, 'peer.py'), ...cases, '--until', String(until), '--out', out];
    const printed = output('python3', args);
    expect(printed).toBe(readFileSync(out, 'utf8'));
    return printed
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { case: string; process?: number; error?: string });
  }

  it('goes on in another process after a case that ends its own, and blames no other for it', () => {
    const found = rows(50, 'a', 'crashes', 'b', 'loses the device', 'c', 'd');
    expect(found.map((row) => row.case)).toEqual(['a', 'crashes', 'b', 'loses the device', 'c', 'd']);
    expect(found.map((row) => row.error)).toEqual([
      undefined,
      'the process ended with -6',
      ...new Array(4).fill(undefined),
    ]);
    expect(new Set(found.map((row) => row.process)).size).toBe(4);
  });

  it('writes down what there was no time for', () => {
    const found = rows(1, 'a', 'hangs', 'b');
    expect(found.map((row) => row.error)).toEqual([undefined, ...new Array(2).fill('not run: no time left')]);
  });
});
