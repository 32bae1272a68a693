/** A device that takes a slow path says so when a policy is made, a sentence each; else the only sign of it would be the time. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { native } from '../../src/engine/native.js';
import type { DType } from '../../src/engine/native-model.js';
import { tinyConfig, Workshop } from '../rollout/tiny.js';

const addon = native() as ReturnType<typeof native> & { useKernels(name: string): void };

let workshop: Workshop;
beforeEach(() => {
  workshop = new Workshop();
});
afterEach(() => {
  workshop.dispose();
  addon.useKernels(process.env.TROUPE_KERNELS ?? '');
});

const slow = (headDim: number, dtype: DType) => workshop.policy(tinyConfig({ headDim }), dtype).slowPaths;

it('names heads that decoding has no tensor-core kernel for', () => {
  addon.useKernels('emulated');
  expect(slow(64, 'bfloat16')).toEqual([]);
  expect(slow(96, 'bfloat16')).toEqual([
    expect.stringMatching(
      /^decoding attends row by row, without tensor cores: .* heads of 96 are not, on this device\.$/,
    ),
  ]);
  expect(slow(320, 'bfloat16')).toEqual([
    'decoding attends by plain operators: no kernel takes heads of 320, more than 256.',
  ]);
  expect(slow(96, 'float32')).toEqual([]);
});

it('says nothing of the CPU, whose kernels take every shape', () => {
  addon.useKernels('cpu');
  expect(slow(96, 'bfloat16')).toEqual([]);
});
