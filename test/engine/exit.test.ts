/**
 * Guards against the ways in which a native addon spoils the end of a process: hanging, aborting (SIGABRT,
 * SIGSEGV), or swallowing the exit code, with work in flight in the engine worker.
 */
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const child = fileURLToPath(new URL('exit-child.mjs', import.meta.url));
const model = fileURLToPath(new URL('../../models/troupe-0.3m', import.meta.url));

interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  output: string;
}

function run(way: string, signal?: NodeJS.Signals, folder = model): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const process = spawn('node', [child, way, folder], { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    const collect = (data: Buffer) => {
      output += data.toString();
      if (signal !== undefined && output.includes('ready')) process.kill(signal);
    };
    process.stdout.on('data', collect);
    process.stderr.on('data', collect);
    process.on('error', reject);
    process.on('exit', (code, ended) => resolve({ code, signal: ended, output }));
  });
}

describe('a process with an engine', () => {
  it('ends by itself when nothing is in flight', async () => {
    expect(await run('natural')).toMatchObject({ code: 0, signal: null, output: 'done\n' });
  });

  it('ends with process.exit in the middle of work', async () => {
    expect(await run('exit')).toMatchObject({ code: 3, signal: null });
  });

  it('ends with an uncaught error in the middle of work', async () => {
    const ended = await run('uncaught');
    expect(ended).toMatchObject({ code: 1, signal: null });
    expect(ended.output).toContain('on purpose');
  });

  it('ends after its engine was closed in the middle of work, and rejects what was in flight', async () => {
    const ended = await run('close');
    expect(ended).toMatchObject({ code: 0, signal: null });
    expect(ended.output).toContain('rejected: The engine was closed.');
    expect(ended.output).toContain('closed');
  });

  it('ends where its engine hangs in a system call, after what it had to say', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'troupe-hang-'));
    try {
      execFileSync('mkfifo', [join(folder, 'config.json')]);
      const ended = await run('hang', undefined, folder);
      // Node waits for its threads in every other end of a process.
      expect(ended).toEqual({
        code: null,
        signal: 'SIGKILL',
        output: 'rejected: the engine hangs.\nclosed\n',
      });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it.each(['SIGINT', 'SIGTERM'] as const)('ends with %s in the middle of work', async (signal) => {
    expect(await run('signal', signal)).toMatchObject({ code: null, signal });
  });
});
