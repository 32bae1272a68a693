/**
 * What reaches into a sandbox, and what an answer's processes use together: descriptors of the parent, memory,
 * inodes; and what becomes of an answer whose sandbox somebody else kills.
 */
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { gradeProgram } from '../../src/tasks/code-grading.js';
import type { CodeTests } from '../../src/tasks/code-tests.js';
import { bubblewrapArguments } from '../../src/tasks/sandbox/bubblewrap.js';
import { limitsSchema, SandboxPool } from '../../src/tasks/sandbox.js';
import { has, needs } from '../needs.js';

// A memory limit of its own marks this file's processes.
const MEMORY = 211;
const limits = limitsSchema.parse({ seconds: 8, memoryMiB: MEMORY, files: 300, temporaryMiB: 32 });
let pool: SandboxPool;

beforeAll(async () => {
  if (has('bubblewrap')) pool = await SandboxPool.open({ limits, jobs: 1 });
});
afterAll(async () => {
  await pool?.close();
});
beforeEach(needs('bubblewrap'));

const printsSeven: CodeTests = { style: 'stdin', cases: [{ input: '3 4\n', output: '7\n' }] };
const grade = async (code: string, tests: CodeTests = printsSeven) =>
  (await gradeProgram(pool, `\`\`\`python\n${code}\n\`\`\``, tests)).reason;

describe('descriptors', () => {
  test('of the parent, 40 of them open, are closed inside', async () => {
    const { installation, mode } = pool;
    const command = bubblewrapArguments(installation, limits, mode, 60_598, {
      seccomp: undefined,
      status: 2,
    });
    const open = 'for i in $(seq 10 49); do eval "exec $i</etc/passwd"; done; exec "$@"';
    const child = spawn('bash', ['-c', open, 'bash', installation.bubblewrap.path, ...command]);
    let said = '';
    const line = () =>
      new Promise<string>((resolve) => {
        const look = () => {
          const end = said.indexOf('\n');
          if (end < 0) return void child.stdout.once('data', look);
          resolve(said.slice(0, end));
          said = said.slice(end + 1);
        };
        look();
      });
    child.stdout.on('data', (data: Buffer) => {
      said += data.toString();
    });
    try {
      expect(await line()).toBe('{"ready": true}');
      const code =
        'import os\ndef f():\n  return [os.readlink(f"/proc/self/fd/{d}") for d in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{d}")]';
      child.stdin.write(`${JSON.stringify({ operation: 'load', code })}\n`);
      expect(await line()).toBe('{"loaded": true}');
      child.stdin.write(`${JSON.stringify({ operation: 'ask', what: 'call', args: [{ $name: 'f' }] })}\n`);
      const { value } = JSON.parse(await line()) as { value: string[] };
      // Standard input, output and errors name nothing; the channel is the pipe that they were.
      expect(value.filter((target) => !/^(?:pipe|socket):|^\/dev\/null$/.test(target))).toEqual([]);
      expect(value.length).toBe(5);
    } finally {
      child.stdin.end();
      child.kill();
    }
  });

  test('of another process inside lead nowhere', async () => {
    const read =
      'import os\nfor p in os.listdir("/proc"):\n  if not p.isdigit(): continue\n  try:\n    for d in os.listdir(f"/proc/{p}/fd"):\n      t = os.readlink(f"/proc/{p}/fd/{d}")\n      if not t.startswith(("pipe:", "socket:", "/dev/null", "/tmp/", "/proc/", "anon_inode:")): print(p, t)\n  except OSError: pass\nprint(7)';
    expect(await grade(read)).toBe('correct');
  });
});

describe('limits on all processes together', () => {
  test('memory', async () => {
    const each = Math.floor(MEMORY / 3) * 2 ** 20;
    const bomb = `import os, time\nfor i in range(4):\n  if os.fork() == 0:\n    x = bytearray(${each})\n    for j in range(0, len(x), 4096): x[j] = 1\n    time.sleep(20)\n    os._exit(0)\ntime.sleep(20)\nprint(7)`;
    expect(await grade(bomb)).toBe('memory');
    // What they share counts once.
    const shared = `import os, time\nx = bytearray(${each})\nfor j in range(0, len(x), 4096): x[j] = 1\nchildren = [os.fork() for i in range(1)]\nif children[0] == 0:\n  time.sleep(0.5)\n  os._exit(0)\nos.wait()\nprint(7)`;
    expect(await grade(shared)).toBe('correct');
  });

  test('inodes: files, links and folders', async () => {
    const flood = (make: string) =>
      `import os, time\ni = 0\ntry:\n  while i < 200000:\n    ${make}\n    i += 1\nexcept OSError: pass\ntime.sleep(20)\nprint(7)`;
    expect(await grade(flood('os.close(os.open(f"/tmp/{i}", os.O_CREAT))'))).toBe('files');
    expect(await grade(flood('os.symlink("x", f"/tmp/{i}")'))).toBe('files');
    expect(await grade(flood('os.mkdir(f"/dev/shm/{i}")'))).toBe('files');
    const few = 'for i in range(200): open(f"/tmp/{i}", "w")\nprint(7)';
    expect(await grade(few)).toBe('correct');
  });
});

/** Numbers of processes of this file's sandboxes that run `name`. */
function processes(name: string): number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .filter((entry) => {
      try {
        const line = readFileSync(`/proc/${entry}/cmdline`, 'utf8');
        return line.includes(`"memory":${MEMORY * 2 ** 20}`) && line.startsWith(name);
      } catch {
        return false;
      }
    })
    .map(Number);
}

function statusOf(number: number): string {
  try {
    return readFileSync(`/proc/${number}/status`, 'utf8');
  } catch {
    return '';
  }
}

describe('killed from outside', () => {
  /** Grades a program that takes a moment, while every process of the pool's is killed once. */
  async function graded(
    name: string,
    which = (numbers: number[]) => numbers,
    tests?: CodeTests,
  ): Promise<string> {
    const code = tests === undefined ? 'print(7)' : 'def f(): return 7';
    const verdict = grade(`import time\ntime.sleep(2)\n${code}`, tests);
    await sleep(800);
    let found = which(processes(name));
    for (; found.length === 0; found = which(processes(name))) await sleep(20);
    for (const number of found) {
      try {
        process.kill(number, 'SIGKILL');
      } catch {
        // It ended in the meantime.
      }
    }
    return verdict;
  }

  test('an answer is graded again', async () => {
    expect(await graded(pool.installation.python.path)).toBe('correct');
    expect(await graded(pool.installation.bubblewrap.path)).toBe('correct');
    // Two sandboxes, and spare ones that were killed with them.
    const asserts: CodeTests = { style: 'asserts', code: 'assert f() == 7\n', names: ['f'], context: '' };
    expect(await graded(pool.installation.python.path, (all) => all, asserts)).toBe('correct');
  });

  test('so is one whose own process alone is killed, the largest, as a system without memory does it', async () => {
    const parent = (number: number) => Number(/^PPid:\s*(\d+)/m.exec(statusOf(number))?.[1]);
    const forked = (numbers: number[]) => numbers.filter((number) => numbers.includes(parent(number)));
    expect(await graded(pool.installation.python.path, forked)).toBe('correct');
  });

  test('an answer that kills itself ends all the same', async () => {
    expect(await grade('import os\nos.kill(os.getpid(), 9)')).toBe('killed');
    expect(await grade('import os\nos.kill(os.getppid(), 9)')).toBe('killed');
  });
});

describe('time', () => {
  test("the judge's own work is limited as well", async () => {
    const tests = (code: string): CodeTests => ({ style: 'asserts', code, names: ['f'], context: '' });
    // A comparison that takes the judge for ever, of values that the program sends at once.
    const slow = 'assert [x for x in f() if x in f()] == 7\n';
    const start = performance.now();
    expect(await grade('def f(): return range(10**12)', tests(slow))).toBe('timeout');
    expect(performance.now() - start).toBeLessThan(60_000);
  });
});

test('values nested without end end nothing', async () => {
  const deep = 'def f():\n  v = []\n  for _ in range(3000): v = [v]\n  return v';
  const call: CodeTests = { style: 'function', name: 'f', cases: [{ args: [], outputs: [7] }] };
  const judge: CodeTests = { style: 'asserts', code: 'assert f() == 7\n', names: ['f'], context: '' };
  const rejections: unknown[] = [];
  const note = (error: unknown) => rejections.push(error);
  process.on('unhandledRejection', note);
  try {
    expect(await grade(deep, call)).toBe('error');
    expect(await grade(deep, judge)).toBe('error');
    await sleep(50);
  } finally {
    process.off('unhandledRejection', note);
  }
  expect(rejections).toEqual([]);
});
