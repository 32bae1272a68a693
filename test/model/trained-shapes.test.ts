/** One shape on the CUDA kernels' emulation; the slow suite has the others, test/gpu all of them on a device. */
import { it } from 'vitest';
import { useEmulation } from '../kernels/counting.js';
import { checkTensorsAreFreed } from './support.js';
import { checkShape, shapes } from './trained-shapes.js';

checkTensorsAreFreed();
useEmulation();

it('adapters on the shape of Qwen3 4B: no further from fp32 than plain operators', () => {
  const work = { layers: 1, prompts: [40, 20, 5], rounds: 1 };
  checkShape(shapes.qwen3, work, 'adapters', 'cpu', 'emulated');
});
