/** A folder for one test, gone after it. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';

export function temporaryFolder(parent: string = tmpdir()): string {
  const folder = mkdtempSync(join(parent, 'troupe-test-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Where syncing costs nothing, for tests that write thousands of small files: memory, if the system has it. */
export const fastParent = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
