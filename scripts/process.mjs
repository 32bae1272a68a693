/** Running other programs for the install step, and the one kind of error that it ends with. */
import { spawnSync } from 'node:child_process';

/** Something is missing on this machine: one sentence that says what, and how to get it. */
export class Missing extends Error {}

/**
 * Runs a program and returns what it printed; a program that cannot be started has the status -1.
 *
 * @param {string} command
 * @param {string[]} args
 * @param {import('node:child_process').SpawnSyncOptions} [options]
 */
export function run(command, args, options = {}) {
  const result = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 1 << 28, ...options });
  return {
    ok: result.status === 0,
    status: result.error === undefined ? result.status : -1,
    stdout: String(result.stdout ?? ''),
    stderr: String(result.stderr ?? ''),
  };
}

/** Runs a program whose output the user sees. Returns whether it succeeded. */
export function show(command, args, options = {}) {
  return run(command, args, { stdio: 'inherit', ...options }).ok;
}

/** The first of the commands that can be started with `args`, or undefined. */
export function firstThatRuns(commands, args) {
  return commands.find(([command, ...rest]) => run(command, [...rest, ...args]).ok);
}
