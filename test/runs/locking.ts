/**
 * Run as a child process by run-directory.test.ts, PROCESSES at once: node locking.ts FOLDER TIMES PROCESSES. Waits until
 * all of them are there, takes the lock as often, and looks each time whether another process is inside: whoever holds
 * it makes the file `inside`, which must not be there.
 */
import { closeSync, mkdirSync, openSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { lockRun } from '../../src/runs/lock.js';

const [folder = '', times = '0', processes = '1'] = process.argv.slice(2);
const inside = join(folder, 'inside');
// A process that starts late would find the lock free each time.
const ready = join(folder, 'ready');
mkdirSync(ready, { recursive: true });
writeFileSync(join(ready, String(process.pid)), '');
while (readdirSync(ready).length < Number(processes)) await new Promise((resolve) => setTimeout(resolve, 1));
const counts = { held: 0, refused: 0, together: 0 };
for (let i = 0; i < Number(times); i++) {
  try {
    const release = lockRun(folder);
    counts.held++;
    try {
      closeSync(openSync(inside, 'wx'));
    } catch {
      counts.together++;
    }
    await new Promise((resolve) => setTimeout(resolve, 2));
    rmSync(inside, { force: true });
    release();
  } catch {
    counts.refused++;
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 5));
  }
}
console.log(JSON.stringify(counts));
