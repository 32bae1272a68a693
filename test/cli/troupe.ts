/**
 * The command line for tests: as a user starts it, the built program in a process of its own, or its commands within
 * the test's process, which spares half a second and what is loaded with each.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { format } from 'node:util';
import { expect } from 'vitest';
import { runCommandLine } from '../../src/cli/command-line.js';

export const main = fileURLToPath(new URL('../../build/js/cli/main.js', import.meta.url));

/** Path of a folder of test/golden. */
export const golden = (path: string) => fileURLToPath(new URL(`../golden/${path}`, import.meta.url));

export interface Outcome {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** In a process of its own: where it is the process that is tested. */
export function troupe(args: readonly string[], environment: Record<string, string> = {}): Outcome {
  return spawnSync('node', [main, ...args], {
    encoding: 'utf8',
    env: { ...process.env, OMP_NUM_THREADS: '1', ...environment },
    // A test's own limit does not end a process that it waits for.
    timeout: 55_000,
    killSignal: 'SIGKILL',
  });
}

/** Within this process, one after the other: the exit code and what was printed, whatever printed it. */
export async function command(args: readonly string[]): Promise<Outcome> {
  process.env.OMP_NUM_THREADS ??= '1';
  const printed = { stdout: '', stderr: '' };
  const line =
    (to: keyof typeof printed) =>
    (...values: unknown[]) => {
      printed[to] += `${format(...values)}\n`;
    };
  const write = (to: keyof typeof printed) => (chunk: string | Uint8Array) => {
    printed[to] += Buffer.from(chunk as Uint8Array).toString('utf8');
    return true;
  };
  const { log, error } = console;
  const { stdout, stderr, exitCode } = process;
  const writes = [stdout.write, stderr.write] as const;
  console.log = line('stdout');
  console.error = line('stderr');
  stdout.write = write('stdout') as typeof stdout.write;
  stderr.write = write('stderr') as typeof stderr.write;
  process.exitCode = 0;
  try {
    await runCommandLine(args);
    return { status: Number(process.exitCode), ...printed };
  } finally {
    Object.assign(console, { log, error });
    [stdout.write, stderr.write] = writes;
    process.exitCode = exitCode;
  }
}

/** What a command that should work prints as one JSON value. */
export async function json<T>(args: readonly string[]): Promise<T> {
  const { status, stdout, stderr } = await command([...args, '--json']);
  expect(status, stderr).toBe(0);
  return JSON.parse(stdout) as T;
}

/** A command that should fail for what the user can mend: one message with `parts` in it, no stack, nothing on stdout. */
export async function fails(args: readonly string[], parts: readonly string[], code = 1): Promise<string> {
  const { status, stdout, stderr } = await command(args);
  expect(status, stderr).toBe(code);
  expect(stderr).not.toMatch(/^ {4}at |node:internal/m);
  for (const part of parts) expect(stderr).toContain(part);
  expect(stdout).toBe('');
  return stderr;
}
