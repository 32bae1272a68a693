/**
 * A checkout with nothing but its scripts, for tests of the install step: programs that it calls are stand-ins on a PATH of
 * their own; nothing is fetched or compiled.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect } from 'vitest';

export const project = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
/** A folder with the scripts, new for each test, and the PATH of the programs that they call. */
export let root: string;
export let bin: string;

/** Each test of the file has a checkout of its own. */
export function useCheckout(): void {
  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'troupe-install-'));
    bin = join(root, 'bin');
    mkdirSync(bin);
    cpSync(join(project, 'scripts'), join(root, 'scripts'), { recursive: true });
    cpSync(join(project, 'package.json'), join(root, 'package.json'));
    symlinkSync(join(project, 'node_modules'), join(root, 'node_modules'));
  });
  afterEach(() => rmSync(root, { recursive: true }));
}

export function fakeLibtorch(name: string, version = '2.13.0'): string {
  const folder = join(root, name);
  const [major, minor, patch] = version.split('.');
  mkdirSync(join(folder, 'include/torch/headeronly'), { recursive: true });
  mkdirSync(join(folder, 'lib'));
  writeFileSync(
    join(folder, 'include/torch/headeronly/version.h'),
    `#define TORCH_VERSION_MAJOR ${major}\n#define TORCH_VERSION_MINOR ${minor}\n#define TORCH_VERSION_PATCH ${patch}\n`,
  );
  writeFileSync(join(folder, 'lib/libtorch_cpu.so'), '');
  return folder;
}

export function program(name: string, script: string): void {
  writeFileSync(join(bin, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
}

export function install(environment: Record<string, string> = {}, ...flags: string[]) {
  const child = spawnSync(process.execPath, [join(root, 'scripts/install.mjs'), ...flags], {
    env: { PATH: bin, ...environment },
    encoding: 'utf8',
  });
  return { status: child.status, output: child.stdout, sentence: child.stderr.trim() };
}

/** One sentence on one line: what is missing and what to do. */
export function expectSentence(result: ReturnType<typeof install>, ...parts: RegExp[]): void {
  expect(result.status).toBe(1);
  expect(result.sentence.split('\n')).toHaveLength(1);
  for (const part of parts) expect(result.sentence).toMatch(part);
  expect(result.sentence).not.toMatch(/ at .*:\d+:\d+/);
}
