/** On the CUDA kernels' emulation; test/gpu has the same on a device. */
import { describe, it } from 'vitest';
import { useEmulation } from '../kernels/counting.js';
import { checkTensorsAreFreed } from './support.js';
import { checkShape, shapes, wholeWork } from './trained-shapes.js';

checkTensorsAreFreed();
useEmulation();

describe.each(Object.entries(shapes))('%s', (_, config) => {
  it.each(['adapters', 'full'] as const)('%s: no further from fp32 than plain operators', (what) => {
    checkShape(config, wholeWork, what, 'cpu', 'emulated');
  });
});
