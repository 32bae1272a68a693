// A process with an engine in the middle of work that ends in the way its argument names (exit.test.ts).
import { Engine } from '../../build/js/engine/engine.js';

const [way, model] = process.argv.slice(2);
const engine = new Engine();
await engine.send('loadModel', {
  name: 'model',
  folder: model,
  dtype: 'float32',
  device: 'cpu',
  rollout: { cacheBytes: 2 ** 26, maxBatch: 32, prefillTokens: 512, seed: 0, deterministic: false },
});
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
