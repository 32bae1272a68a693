/**
 * Programs that some tests need and a machine may lack. Such a test skips, and the end of the run says why
 * (test/summary.ts); with TROUPE_TEST_ALL=1, as in CI, it runs and fails.
 */
import { spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import type { TestContext } from 'vitest';

/** Debian's package chromium; TROUPE_CHROMIUM names another one. */
export const chromiumPath = process.env.TROUPE_CHROMIUM ?? '/usr/bin/chromium';

/** A Python with pyarrow, polars and tokenizers: TROUPE_TEST_PYTHON or python3. */
export const pythonPath = process.env.TROUPE_TEST_PYTHON ?? 'python3';

const PROGRAMS = {
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
    found: () => spawnSync(pythonPath, ['-c', 'import pyarrow, polars']).status === 0,
    remedy: 'pip install pyarrow polars',
  },
  tensorboard: {
    found: () => spawnSync(pythonPath, ['-c', 'import tensorboard']).status === 0,
    remedy: 'pip install tensorboard',
  },
  tokenizers: {
    found: () => spawnSync(pythonPath, ['-c', 'import tokenizers']).status === 0,
    remedy: 'pip install tokenizers',
  },
};

export type Program = keyof typeof PROGRAMS;

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

const known = new Map<Program, boolean>();

/** Whether tests that need the program run. */
export function has(program: Program): boolean {
  if (process.env.TROUPE_TEST_ALL === '1') return true;
  const found = known.get(program) ?? PROGRAMS[program].found();
  known.set(program, found);
  return found;
}

/** For `beforeEach`: skips the test where the program is missing. */
export function needs(program: Program): (context: Pick<TestContext, 'skip'>) => void {
  return (context) => context.skip(!has(program), missing(program));
}

const missing = (program: Program) => `${program} is missing (${PROGRAMS[program].remedy})`;

/** One line for each program that this machine lacks. */
export function allMissing(): string[] {
  const names = Object.keys(PROGRAMS) as Program[];
  return names.filter((program) => !has(program)).map(missing);
}
