/**
 * File operations that stop, as for a process that is killed: from the n-th one on every operation fails, and a
 * write at that moment leaves half of its bytes. What code catches or cleans up afterwards reaches no disk.
 */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';

const OPERATIONS = [
  'openSync',
  'writeSync',
  'fsyncSync',
  'fdatasync',
  'renameSync',
  'rmSync',
  'mkdirSync',
  'ftruncateSync',
  'writeFileSync',
] as const;

export class Crash extends Error {}

/**
 * Runs `action` and calls `dies` instead of its operation number `at` and all later ones; 0: never. Returns how
 * many operations there were.
 */
export async function crashing(at: number, dies: () => never, action: () => Promise<void>): Promise<number> {
  const functions = fs as unknown as Record<string, (...args: unknown[]) => unknown>;
  const originals = OPERATIONS.map((name) => [name, functions[name]] as const);
  let operations = 0;
  for (const [name, original] of originals) {
    functions[name] = (...args) => {
      operations += 1;
      if (operations === at && name === 'writeSync') {
        original?.(args[0], args[1], args[2], Math.floor(Number(args[3]) / 2), args[4]);
      }
      if (at > 0 && operations >= at) dies();
      return original?.(...args);
    };
  }
  syncBuiltinESMExports();
  try {
    await action();
  } finally {
    for (const [name, original] of originals) if (original) functions[name] = original;
    syncBuiltinESMExports();
  }
  return operations;
}
