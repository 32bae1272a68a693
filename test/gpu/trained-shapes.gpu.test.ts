/** The kernels that models of the widths of Qwen3 and SmolLM2 take in bfloat16, rollout and training pass, against fp32. */
import { describe, it } from 'vitest';
import { checkTensorsAreFreed } from '../model/support.js';
import { checkShape, shapes, wholeWork } from '../model/trained-shapes.js';
import { device } from './device.js';

checkTensorsAreFreed();

describe.each(Object.entries(shapes))('%s', (_, config) => {
  it.each(['adapters', 'full'] as const)('%s: no further from fp32 than plain operators', (what) => {
    checkShape(config, wholeWork, what, device, '');
  });
});
