/** The addon in workers and at the end of a process: state of its own for each, and a clean exit with work in flight. */
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { setTimeout } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/config/package.js';
import { native } from '../../src/engine/native.js';

const file: string = createRequire(import.meta.url)('node-gyp-build').path(packageRoot());
const prelude = `const addon = require(${JSON.stringify(file)});
  const ones = (n) => addon.call('aten::ones', '', [[n, n]]);`;

function message(worker: Worker): Promise<unknown> {
  return new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
}

describe('environments', () => {
  it('each worker counts its own tensors and takes no others', async () => {
    const before = native().liveTensors();
    const code = `${prelude} ones(2); ones(2); require('worker_threads').parentPort.postMessage(addon.liveTensors())`;
    const workers = [0, 1].map(() => new Worker(code, { eval: true }));
    expect(await Promise.all(workers.map(message))).toEqual([2, 2]);
    expect(native().liveTensors()).toBe(before);
    await Promise.all(workers.map((worker) => worker.terminate()));
  });

  it('a worker can be ended in the middle of native work', async () => {
    const code = `${prelude} const x = ones(400); require('worker_threads').parentPort.postMessage('started');
      for (;;) addon.call('aten::mm', '', [x, x]).dispose();`;
    const worker = new Worker(code, { eval: true });
    expect(await message(worker)).toBe('started');
    await setTimeout(50);
    expect(await worker.terminate()).toBe(1);
    const tensor = native().tensor(new Float32Array([1]), [1], 'float32', 'cpu');
    expect(native().read(tensor)).toEqual(new Float32Array([1]));
    tensor.dispose();
  });

  it.each([
    ['by itself', '', 0],
    ['by process.exit', 'process.exit(3)', 3],
    ['by an uncaught error', "throw new Error('planned')", 1],
  ])('a process that holds tensors ends %s', (_, ending, status) => {
    const child = spawnSync(process.execPath, ['-e', `${prelude} globalThis.kept = ones(100); ${ending}`]);
    expect([child.status, child.signal]).toEqual([status, null]);
  });

  it('the garbage collector frees tensors that were forgotten', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const before = native().liveTensors();
    for (let i = 0; i < 100; i++) native().tensor(new Float32Array(1), [1], 'float32', 'cpu');
    for (let i = 0; i < 10 && native().liveTensors() > before; i++) {
      collect();
      await setTimeout(1);
    }
    expect(native().liveTensors()).toBe(before);
  });
});
