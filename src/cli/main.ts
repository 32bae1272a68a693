#!/usr/bin/env node
/** Entry of the command line: the process around command-line.ts, and what users' files may do to it. */
import type { ChildProcess } from 'node:child_process';
import { subscribe } from 'node:diagnostics_channel';
import { hideBin } from 'yargs/helpers';
import {
  exitProcess,
  refuseChdir,
  refuseExit,
  userFiles,
  watchBlocked,
  watchStray,
} from '../config/user-code.js';
import { report, runCommandLine } from './command-line.js';

// `troupe … | head` closes the pipe, a closed terminal both: that is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') exitProcess(0);
  if (error.code !== 'EIO') throw error;
});
process.stderr.on('error', () => {});

refuseExit();
refuseChdir();
endChildren();
const args = hideBin(process.argv);
const fail = (error: Error) => {
  report(error, args);
  exitProcess(1);
};
watchStray(fail);
watchBlocked(fail);
await runCommandLine(args);
endWithUserFiles();

/** Processes that a user's file has started and that Node would wait for end with this one. */
function endChildren(): void {
  const children = new Set<ChildProcess>();
  subscribe('child_process', (message) => {
    const { process: child } = message as { process: ChildProcess };
    children.add(child);
    child.once('exit', () => children.delete(child));
  });
  process.on('exit', () => {
    for (const child of children) if (isAwaited(child)) child.kill();
  });
}

/** Whoever wants a process to go on calls its unref(), which only its handle knows. */
function isAwaited(child: ChildProcess): boolean {
  const handle: unknown = Reflect.get(child, '_handle');
  return (handle as { hasRef?(): boolean } | null)?.hasRef?.() ?? false;
}

/** A timer or a socket that a user's file left open must not keep the process. */
function endWithUserFiles(): void {
  if (userFiles().length === 0) return;
  const end = () => {
    if (!process.exitCode) console.error(`${userFiles().join(', ')}: left something running; it was ended.`);
    exitProcess();
  };
  // Unreferenced: it comes only if something else keeps the process.
  setTimeout(end, 500).unref();
}
