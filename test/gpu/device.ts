/**
 * The device that `npm run test:gpu` runs on: cuda:0, or TROUPE_TEST_DEVICE (`cpu` tries the tests themselves out). A
 * machine without it fails every test: nothing is skipped.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';

export const device = process.env.TROUPE_TEST_DEVICE ?? 'cuda:0';

const main = fileURLToPath(new URL('../../build/js/cli/main.js', import.meta.url));

/** Path of a folder of test/golden. */
export const golden = (path: string) => fileURLToPath(new URL(`../golden/${path}`, import.meta.url));

/** What a command prints that must succeed. */
export function output(args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], { encoding: 'utf8' });
  expect(status, stderr).toBe(0);
  return stdout;
}

export const json = <T>(args: readonly string[]) => JSON.parse(output([...args, '--json'])) as T;

/** Status and messages of a command that may fail. */
export function outcome(args: readonly string[]): { status: number | null; stderr: string } {
  const { status, stderr } = spawnSync(process.execPath, [main, ...args], { encoding: 'utf8' });
  return { status, stderr };
}
