/** Run as a child process by kill.test.ts: node killed-run.ts FOLDER AT; it kills itself at file operation AT. */
import { crashing } from './crash.js';
import { smallRun } from './small-run.js';

const [folder = '', at = '0'] = process.argv.slice(2);
const dies = (): never => {
  process.kill(process.pid, 'SIGKILL');
  throw new Error('still alive');
};
await crashing(Number(at), dies, () => smallRun(folder));
