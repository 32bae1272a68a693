#!/usr/bin/env node
/** Entry of the command line: the process around command-line.ts, and what users' files may do to it. */
import { hideBin } from 'yargs/helpers';
import { exitProcess, refuseExit, userFiles, watchBlocked, watchStray } from '../config/user-code.js';
import { report, runCommandLine } from './command-line.js';

// `troupe … | head` closes the pipe, a closed terminal both: that is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') exitProcess(0);
  if (error.code !== 'EIO') throw error;
});
process.stderr.on('error', () => {});

refuseExit();
const args = hideBin(process.argv);
const fail = (error: Error) => {
  report(error, args);
  exitProcess(1);
};
watchStray(fail);
watchBlocked(fail);
await runCommandLine(args);
endWithUserFiles();

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
