/**
 * What some tests need and a machine may lack: needs, a right of this process, files beside the checkout. Such a test
 * skips, and the end of the run says why (test/summary.ts); with TROUPE_TEST_ALL=1, as in CI, it runs and fails, unless it is
 * something that nobody can install (`elsewhere`).
 */
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, mkdtempSync, readFileSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { TestContext } from 'vitest';
import { findNvcc } from '../scripts/cuda.mjs';

/** Debian's package chromium; TROUPE_CHROMIUM names another one. */
export const chromiumPath = process.env.TROUPE_CHROMIUM ?? '/usr/bin/chromium';

/** A Python with pyarrow, polars and tokenizers: TROUPE_TEST_PYTHON or python3. */
export const pythonPath = process.env.TROUPE_TEST_PYTHON ?? 'python3';

/** Published data sets and cases that are no part of the repository. */
export const dataFolder = fileURLToPath(new URL('../../shared/data', import.meta.url));

interface Needed {
  found(): boolean;
  remedy: string;
  /** No command brings it: it skips in CI too. */
  elsewhere?: true;
}

const imports = (name: string) => () => spawnSync(pythonPath, ['-c', `import ${name}`]).status === 0;

const NEEDED = {
  chromium: { found: () => isExecutable(chromiumPath), remedy: 'apt-get install chromium' },
  bubblewrap: {
    found: () => onPath('bwrap') && onPath('python3'),
    remedy: 'apt-get install bubblewrap python3',
  },
  python: { found: () => onPath('python3'), remedy: 'apt-get install python3' },
  peft: {
    // Importing them takes seconds.
    found: () =>
      spawnSync(pythonPath, [
        '-c',
        `import importlib.util as i, sys; sys.exit(None in [i.find_spec(n) for n in ('torch', 'transformers', 'peft')])`,
      ]).status === 0,
    remedy: 'pip install torch transformers peft',
  },
  pyarrow: {
    found: imports('pyarrow, polars'),
    remedy: 'pip install pyarrow polars',
  },
  tensorboard: {
    found: imports('tensorboard'),
    remedy: 'pip install tensorboard',
  },
  tokenizers: {
    found: imports('tokenizers'),
    remedy: 'pip install tokenizers',
  },
  // Importing it takes seconds.
  'reasoning-gym': {
    found: () =>
      spawnSync(pythonPath, [
        '-c',
        'import importlib.util as i, sys; sys.exit(i.find_spec("reasoning_gym") is None)',
      ]).status === 0,
    remedy: 'pip install reasoning-gym',
    elsewhere: true,
  },
  terminal: {
    found: () => spawnSync('python3', ['-c', 'import pty; pty.openpty()']).status === 0,
    remedy: 'apt-get install python3',
  },
  nvcc: {
    found: () => findNvcc() !== undefined,
    remedy: 'apt-get install nvidia-cuda-toolkit, of CUDA 12 or later',
  },
  mount: { found: mayMount, remedy: 'run as root where file systems may be mounted', elsewhere: true },
  'processor kernels': {
    found: hasProcessorKernels,
    remedy: 'a processor with AVX2, and no ATEN_CPU_CAPABILITY=default',
    elsewhere: true,
  },
  'data sets': {
    found: () => existsSync(join(dataFolder, 'cases')),
    remedy: `${dataFolder} holds them`,
    elsewhere: true,
  },
} satisfies Record<string, Needed>;

export type Need = keyof typeof NEEDED;

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function onPath(name: string): boolean {
  return (process.env.PATH ?? '').split(delimiter).some((folder) => isExecutable(join(folder, name)));
}

/** Without them the CPU computes by the plain ATen operators of native/kernels/reference. */
function hasProcessorKernels(): boolean {
  if (process.env.ATEN_CPU_CAPABILITY === 'default') return false;
  return process.arch !== 'x64' || readFileSync('/proc/cpuinfo', 'utf8').includes(' avx2 ');
}

/** In a file system of its own, which goes again. */
function mayMount(): boolean {
  const folder = mkdtempSync(join(tmpdir(), 'troupe-mount-'));
  try {
    if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=4k', 'tmpfs', folder]).status !== 0) return false;
    return spawnSync('umount', [folder]).status === 0;
  } finally {
    rmdirSync(folder);
  }
}

const known = new Map<Need, boolean>();

/** Whether tests that need it run. */
export function has(need: Need): boolean {
  const { found, elsewhere }: Needed = NEEDED[need];
  if (process.env.TROUPE_TEST_ALL === '1' && elsewhere === undefined) return true;
  const there = known.get(need) ?? found();
  known.set(need, there);
  return there;
}

/** For `beforeEach`: skips the test where it is missing. */
export function needs(need: Need): (context: Pick<TestContext, 'skip'>) => void {
  return (context) => context.skip(!has(need), missing(need));
}

const missing = (need: Need) => `${need} is missing (${NEEDED[need].remedy})`;
