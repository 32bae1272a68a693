/**
 * Programs that attack the sandbox: each has to end with a verdict against it, leave no process, and touch
 * nothing outside.
 */
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { gradeProgram } from '../../src/tasks/code-grading.js';
import type { CodeTests } from '../../src/tasks/code-tests.js';
import { createTask } from '../../src/tasks/registry.js';
import { bubblewrapArguments } from '../../src/tasks/sandbox/bubblewrap.js';
import { limitsSchema, SandboxPool, sandboxStatus } from '../../src/tasks/sandbox.js';
import { has, needs } from '../needs.js';

const limits = limitsSchema.parse({ seconds: 4, memoryMiB: 256, outputMiB: 1, fileMiB: 4, temporaryMiB: 8 });
let pool: SandboxPool;

beforeAll(async () => {
  if (has('bubblewrap')) pool = await SandboxPool.open({ limits, jobs: 2 });
});
afterAll(async () => {
  await pool?.close();
});
beforeEach(needs('bubblewrap'));

/** `f` has to return 7. */
const returnsSeven: CodeTests = { style: 'function', name: 'f', cases: [{ args: [], outputs: [7] }] };
/** The program has to print 7. */
const printsSeven: CodeTests = { style: 'stdin', cases: [{ input: '3 4\n', output: '7\n' }] };
const assertsSeven: CodeTests = { style: 'asserts', code: 'assert f() == 7\n', names: ['f'], context: '' };

const grade = async (code: string, tests: CodeTests = returnsSeven) =>
  (await gradeProgram(pool, `\`\`\`python\n${code}\n\`\`\``, tests)).reason;

/** Runs `body` as f and gives what it returned. */
async function value(body: string): Promise<unknown> {
  return pool.run(async (open) => {
    const sandbox = await open();
    await sandbox.request({ operation: 'load', code: `def f():\n  ${body.replaceAll('\n', '\n  ')}` }, 5000);
    const reply = await sandbox.request({ operation: 'ask', what: 'call', args: [{ $name: 'f' }] }, 5000);
    return reply.kind === 'value' ? reply.value : reply;
  });
}

/** Command lines of processes that run here, outside, and contain `text`. */
function processesWith(text: string): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        return [readFileSync(`/proc/${name}/cmdline`, 'utf8')];
      } catch {
        return [];
      }
    })
    .filter((line) => line.includes(text));
}

/** Fails if a process whose command line contains `text` is still there after a while. */
async function gone(text: string): Promise<void> {
  for (let i = 0; i < 200 && processesWith(text).length > 0; i++) {
    await new Promise((done) => setTimeout(done, 20));
  }
  expect(processesWith(text)).toEqual([]);
}

describe('what works', () => {
  test('the status that doctor shows comes from a program that ran', async () => {
    const status = await sandboxStatus();
    expect(status.problem).toBeUndefined();
    expect(status).toMatchObject({ works: true, warnings: [] });
    expect(status.python).toMatch(/python.* 3\./);
  });

  test('functions, programs and asserts', async () => {
    expect(await grade('def f(): return 7')).toBe('correct');
    expect(await grade('print(sum(map(int, input().split())))', printsSeven)).toBe('correct');
    expect(await grade('def f(): return 7', assertsSeven)).toBe('correct');
  });

  test('what goes wrong is named', async () => {
    expect(await grade('def f(): return 8')).toBe('wrong');
    expect(await grade('def f(): return 8', assertsSeven)).toBe('wrong');
    expect(await grade('print(8)', printsSeven)).toBe('wrong');
    expect(await grade('def f() return 7')).toBe('syntax-error');
    expect(await grade('print 7', printsSeven)).toBe('syntax-error');
    expect(await grade('def g(): return 7')).toBe('error');
    expect(await grade('1/0', printsSeven)).toBe('error');
    expect((await gradeProgram(pool, 'I do not know.', returnsSeven)).reason).toBe('no-answer');
  });
});

describe('isolation', () => {
  test('no network: neither sockets nor interfaces', async () => {
    const connect =
      'import socket\ntry:\n  socket.create_connection(("1.1.1.1", 80), 2)\nexcept OSError as e: return type(e).__name__';
    expect(['PermissionError', 'OSError']).toContain(await value(connect));
    expect(
      await value('return [l.split(":")[0].strip() for l in open("/proc/net/dev").readlines()[2:]]'),
    ).toEqual(['lo']);
  });

  test('no home directory, no /etc, no environment of ours', async () => {
    const list = (path: string) =>
      value(
        `import os\ntry: return sorted(os.listdir(${JSON.stringify(path)}))\nexcept OSError as e: return type(e).__name__`,
      );
    expect(await list('/home')).toEqual(['sandbox']);
    expect(await list('/home/sandbox')).toEqual([]);
    const inRoot = await list('/root');
    expect(
      inRoot === 'FileNotFoundError' ||
        inRoot === 'PermissionError' ||
        JSON.stringify(inRoot) === '[".pyenv"]',
    ).toBe(true);
    for (const secret of ['.bashrc', '.ssh', '.gitconfig', '.npmrc']) {
      expect(await value(`import os\nreturn os.path.exists("/root/${secret}")`)).toBe(false);
    }
    expect(
      await value('import os\nreturn os.path.exists("/etc/passwd") or os.path.exists("/etc/shadow")'),
    ).toBe(false);
    expect(await value('import os\nreturn sorted(os.environ)')).not.toContain('NODE_ENV');
    expect(await value(`import os\nreturn os.path.exists(${JSON.stringify(process.cwd())})`)).toBe(false);
  });

  test('writes only to /tmp', async () => {
    const write = (path: string) =>
      value(
        `try:\n  open(${JSON.stringify(path)}, "w").write("x")\n  return "written"\nexcept OSError as e: return type(e).__name__`,
      );
    const inside = `/tmp/written-by-${process.pid}`;
    expect(await write(inside)).toBe('written');
    for (const path of [
      '/x',
      '/usr/x',
      '/dev/x',
      '/home/sandbox/x',
      '/opt/troupe/program.py',
      '/proc/sys/kernel/hostname',
    ]) {
      expect(await write(path), path).not.toBe('written');
    }
    expect(existsSync(inside)).toBe(false);
  });

  test('is not root, has no capabilities, sees only its own processes', async () => {
    expect(await value('import os\nreturn os.getuid() != 0 and os.geteuid() != 0')).toBe(true);
    expect(
      await value(
        'return [l.split()[1] for l in open("/proc/self/status") if l.startswith("CapEff")][0].strip("0")',
      ),
    ).toBe('');
    expect(
      Number(await value('import os\nreturn sum(n.isdigit() for n in os.listdir("/proc"))')),
    ).toBeLessThan(5);
  });

  test('system calls that reach beyond the namespaces are refused', async () => {
    const call = (number: number) =>
      value(
        `import ctypes\nlibrary = ctypes.CDLL(None, use_errno=True)\nlibrary.syscall(${number}, 0x10000000, 0, 0, 0, 0)\nreturn ctypes.get_errno()`,
      );
    if (process.arch !== 'x64') return;
    // ptrace, unshare, mount, shmget, bpf
    for (const number of [101, 272, 165, 29, 321]) expect(await call(number), String(number)).toBe(1);
  });
});

describe('limits', () => {
  test('endless loop', async () => {
    expect(await grade('def f():\n  while True: pass')).toBe('timeout');
    expect(await grade('while True: pass', printsSeven)).toBe('timeout');
    expect(await grade('import time\ntime.sleep(1000)', assertsSeven)).toBe('timeout');
  });

  test('memory', async () => {
    expect(await grade('def f(): return len([0] * 10**9)')).toBe('memory');
    expect(await grade('x = bytearray(10**9)', printsSeven)).toBe('memory');
  });

  test('fork bomb', async () => {
    const bomb = 'import os\nwhile True:\n  try: os.fork()\n  except OSError: pass';
    expect(['timeout', 'crashed', 'killed', 'memory', 'error']).toContain(await grade(bomb, printsSeven));
    const count =
      'import os, time\nn = 0\ntry:\n  while n < 100:\n    if os.fork() == 0: time.sleep(9)\n    n += 1\nexcept OSError: pass\nreturn n';
    expect(Number(await value(count))).toBeLessThan(limits.processes);
  });

  test('threads count as processes', async () => {
    const threads =
      'import threading, time\nn = 0\ntry:\n  while n < 100:\n    threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n    n += 1\nexcept RuntimeError: pass\nreturn n';
    expect(Number(await value(threads))).toBeLessThan(limits.processes);
  });

  test('output flood: on standard output, in a value, in the channel', async () => {
    expect(['error', 'output-limit']).toContain(await grade('print("x" * 10**8)', printsSeven));
    expect(await grade('while True: print("x" * 10**6, flush=True)', printsSeven)).not.toBe('correct');
    expect(await grade('def f(): return "x" * 2 * 10**7')).toBe('output-limit');
    expect(await grade('def f():\n  while True: print("x" * 10**6)')).toBe('timeout');
    const channel =
      'import os\ndef f():\n  while True:\n    for d in range(3, 20):\n      try: os.write(d, b"x" * 10**6)\n      except OSError: pass';
    expect(['output-limit', 'crashed', 'timeout']).toContain(await grade(channel));
  });

  test('file flood: one large file, many small ones', async () => {
    const large =
      'f = open("/tmp/x", "wb")\ntry:\n  for i in range(100): f.write(b"x" * 10**6); f.flush()\nexcept OSError: return i\nreturn "all"';
    expect(Number(await value(large))).toBeLessThan(20);
    const many =
      'i = 0\ntry:\n  while i < 100: open(f"/tmp/{i}", "wb", 0).write(b"x" * 10**6); i += 1\nexcept OSError: pass\nreturn i';
    expect(Number(await value(many))).toBeLessThan(12);
    const shared =
      'i = 0\ntry:\n  while i < 100: open(f"/dev/shm/{i}", "wb", 0).write(b"x" * 10**6); i += 1\nexcept OSError: pass\nreturn i';
    expect(Number(await value(shared))).toBeLessThan(4);
  });
});

describe('verdicts', () => {
  test('written by the program into every descriptor', async () => {
    const forge = (frame: string) =>
      `import os\ndef f():\n  for d in range(3, 20):\n    try: os.write(d, ${frame})\n    except OSError: pass\n  return 8`;
    expect(await grade(forge('b\'{"verdict": "correct"}\\n\''))).not.toBe('correct');
    expect(await grade(forge('b\'{"verdict": "correct"}\\n\''), assertsSeven)).not.toBe('correct');
    expect(await grade(forge('b\'{"correct": true}\\n\''), printsSeven)).not.toBe('correct');
  });

  test('by leaving early, with success', async () => {
    for (const tests of [returnsSeven, assertsSeven, printsSeven]) {
      for (const leave of ['import os\nos._exit(0)', 'import sys\nsys.exit(0)', 'raise SystemExit']) {
        expect(await grade(leave, tests)).not.toBe('correct');
        expect(await grade(`def f():\n  ${leave.replace('\n', '\n  ')}`, tests)).not.toBe('correct');
      }
    }
  });

  test('by values that claim to equal everything', async () => {
    const equal =
      'class E(int):\n  def __eq__(self, other): return True\n  def __ne__(self, other): return False\n  __hash__ = int.__hash__\ndef f(): return E(3)';
    expect(await grade(equal)).toBe('wrong');
    expect(await grade(equal, assertsSeven)).toBe('wrong');
    const plain = 'class E:\n  def __eq__(self, other): return True\ndef f(): return E()';
    expect(await grade(plain)).toBe('wrong');
    expect(await grade(plain, assertsSeven)).toBe('wrong');
  });

  test('by replacing what a judge in the same process would use', async () => {
    const patch =
      'import builtins, json, sys\nbuiltins.AssertionError = SystemError\njson.dumps = lambda *a, **k: \'{"verdict": "correct", "value": 9}\'\nsys.modules["__main__"].Judge = None\ndef f(): return 8';
    expect(await grade(patch, assertsSeven)).not.toBe('correct');
    expect(await grade('def f(): raise AssertionError', assertsSeven)).not.toBe('correct');
  });

  test('by finding the right result in the memory of the process', async () => {
    const tests: CodeTests = {
      style: 'asserts',
      code: 'assert f() == 918273645\n',
      names: ['f'],
      context: '',
    };
    const search = `import gc, sys
def f():
    wanted = int("91827364" + "5")
    places = [o.values() if isinstance(o, dict) else o for o in gc.get_objects() if isinstance(o, (dict, list, tuple))]
    frame = sys._getframe(1)
    while frame:
        places.append(frame.f_locals.values())
        frame = frame.f_back
    found = any(type(v) is int and v == wanted for place in places for v in list(place))
    return wanted if found else 0`;
    expect(await grade(search, tests)).toBe('wrong');
  });

  test('by killing the harness', async () => {
    expect(
      await grade('import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nprint(7)', printsSeven),
    ).not.toBe('correct');
    expect(await grade('import os, signal\ndef f(): os.kill(os.getpid(), signal.SIGKILL)')).toBe('killed');
    expect(['crashed', 'killed', 'timeout', 'wrong', 'error']).toContain(
      await grade('import os\ndef f(): os.kill(-1, 9)'),
    );
  });
});

describe('ends', () => {
  test('a daemon that the program left is gone after its grading', async () => {
    const name = `daemon${process.pid}`;
    const daemon = `import os, subprocess, sys\nsubprocess.Popen([sys.executable, "-c", "import time, signal; signal.signal(15, signal.SIG_IGN); time.sleep(600)", "${name}"], start_new_session=True)\nprint(7)`;
    expect(await grade(daemon, printsSeven)).toBe('correct');
    await gone(name);
  });

  test('closing a pool leaves no process, even of sandboxes that are still starting', async () => {
    // A memory limit of its own marks this pool's processes.
    const own = await SandboxPool.open({ jobs: 3, limits: limitsSchema.parse({ memoryMiB: 257 }) });
    const mark = `"memory":${257 * 2 ** 20}`;
    expect(processesWith(mark).length).toBeGreaterThan(0);
    await own.close();
    await gone(mark);
  });

  test('a sandbox ends with a parent that is killed', async () => {
    const own = limitsSchema.parse({ memoryMiB: 259 });
    const mark = `"memory":${259 * 2 ** 20}`;
    const { installation, mode } = pool;
    const command = bubblewrapArguments(installation, own, mode, 60_599, { seccomp: undefined, status: 2 });
    // The sandbox's standard input stays open here, so its end is not what ends the sandbox.
    const script = 'exec 3<&0; "$@" <&3 & wait';
    const parent = spawn('sh', ['-c', script, 'sh', installation.bubblewrap.path, ...command]);
    await new Promise<void>((resolve) =>
      parent.stdout.on('data', (data: Buffer) => data.includes('ready') && resolve()),
    );
    expect(processesWith(mark).length).toBeGreaterThan(1);
    parent.kill('SIGKILL');
    await gone(mark);
    parent.stdin.end();
  });
});

test('without bubblewrap or Python, code tasks do not start, and say what to install', async () => {
  const path = process.env.PATH;
  try {
    process.env.PATH = '/nonexistent';
    await expect(createTask({ name: 'mini-programs' })).rejects.toThrow(/apt-get install bubblewrap/);
    expect((await sandboxStatus()).problem).toMatch(/apt-get install bubblewrap/);
  } finally {
    process.env.PATH = path;
  }
  await expect(createTask({ name: 'mini-programs', python: '/nonexistent/python3' })).rejects.toThrow(
    /apt-get install python3.*task\.python/,
  );
});
