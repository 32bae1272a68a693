/** The command line as a user starts it: the built program in a process of its own. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';

export const main = fileURLToPath(new URL('../../build/js/cli/main.js', import.meta.url));

/** Path of a folder of test/golden. */
export const golden = (path: string) => fileURLToPath(new URL(`../golden/${path}`, import.meta.url));

export interface Outcome {
  status: number | null;
  stdout: string;
  stderr: string;
}

export function troupe(args: readonly string[], environment: Record<string, string> = {}): Outcome {
  return spawnSync('node', [main, ...args], {
    encoding: 'utf8',
    env: { ...process.env, OMP_NUM_THREADS: '1', ...environment },
  });
}

/** What a command that should work prints as one JSON value. */
export function json<T>(args: readonly string[], environment?: Record<string, string>): T {
  const { status, stdout, stderr } = troupe([...args, '--json'], environment);
  expect(status, stderr).toBe(0);
  return JSON.parse(stdout) as T;
}

/** A command that should fail for what the user can mend: one message with `parts` in it, no stack, nothing on stdout. */
export function fails(args: readonly string[], parts: readonly string[], code = 1): string {
  const { status, stdout, stderr } = troupe(args);
  expect(status, stderr).toBe(code);
  expect(stderr).not.toMatch(/^ {4}at |node:internal/m);
  for (const part of parts) expect(stderr).toContain(part);
  expect(stdout).toBe('');
  return stderr;
}
