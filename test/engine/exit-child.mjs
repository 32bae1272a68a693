// A process with an engine in the middle of work that ends in the way its argument names (exit.test.ts).
import { constants, openSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Engine } from '../../build/js/engine/engine.js';

const [way, model] = process.argv.slice(2);
const engine = new Engine();
const loading = engine.send('loadModel', {
  name: 'model',
  folder: model,
  dtype: 'float32',
  device: 'cpu',
  rollout: { cacheBytes: 2 ** 26, maxBatch: 32, prefillTokens: 512, seed: 0, deterministic: false },
});
if (way === 'hang') {
  // The model's configuration is a pipe. Once this end can be opened the engine has opened it and comes to read it, for
  // ever: given up before that it would end as any thread does.
  for (let open = false; !open; await sleep(20)) {
    try {
      openSync(join(model, 'config.json'), constants.O_WRONLY | constants.O_NONBLOCK);
      open = true;
    } catch (error) {
      if (error.code !== 'ENXIO') throw error;
    }
  }
  await sleep(1000);
  engine.abandon(new Error('the engine hangs.'));
  await loading.catch((error) => console.log(`rejected: ${error.message}`));
  await engine.close();
  console.log('closed');
  await new Promise(() => {}); // nothing keeps the process any more
}
await loading;
await engine.send('createPolicy', {
  name: 'policy',
  model: 'model',
  parameters: { kind: 'full' },
  trainable: true,
  optimizer: { betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0 },
  seed: 0,
});

/** Seconds of work in flight: many scored sequences, or a completion of many tokens. */
function work() {
  const sequences = Array.from({ length: 2000 }, () =>
    Int32Array.from({ length: 64 }, (_, i) => 3 + (i % 200)),
  );
  return engine.send('score', { policy: 'policy', sequences, temperature: 1 });
}

const failed = (error) => console.log(`rejected: ${error.message}`);
switch (way) {
  case 'natural':
    await engine.send('statistics', null);
    console.log('done');
    break;
  case 'exit':
    work().catch(failed);
    setTimeout(() => process.exit(3), 200);
    break;
  case 'uncaught':
    work().catch(failed);
    setTimeout(() => {
      throw new Error('on purpose');
    }, 200);
    break;
  case 'close':
    work().catch(failed);
    setTimeout(() => engine.close().then(() => console.log('closed')), 200);
    break;
  case 'signal':
    work().catch(failed);
    console.log('ready');
    break;
}
