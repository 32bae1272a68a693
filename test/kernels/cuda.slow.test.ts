/**
 * The CUDA kernels on the CPU: every .cu file compiled by the host compiler over native/kernels/cuda/emulation, with the
 * address and undefined-behaviour sanitizers, against plain loops (test/kernels/cuda). What they compute; not races
 * between threads (ptx.slow.test.ts), and not speed.
 */
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { files, runTests } from './programs.js';

const native = 'native/kernels/cuda';
const SANITIZED = ['-O1', '-g1', '-fsanitize=address,undefined', '-fno-sanitize-recover=all'];

it('compute what plain loops compute, within their memory and whatever the order of their threads', async () => {
  const sources = [
    ...files(native, '.cu'),
    join(native, 'paged_plan.cc'),
    join(native, 'emulation', 'emulation.cc'), // the others are of the CUDA backend as a whole
    ...files('test/kernels/cuda', '.cc'),
  ].map((file) => ({ file, flags: SANITIZED }));
  expect(await runTests(sources, SANITIZED)).toMatch(/\n0 of \d+ failed\n$/);
});

it('touch the bytes of their tensors, each once, and as many are counted', async () => {
  const kernels = [
    'elementwise',
    'heads',
    'launches',
    'packed_heads',
    'paged_attention',
    'statistics',
    'weight_gradient',
  ];
  const sources = [
    ...kernels.map((name) => ({ file: join(native, `${name}.cu`), flags: ['-O1', '-fsanitize=thread'] })),
    ...[
      join(native, 'emulation', 'emulation.cc'),
      ...files(join(native, 'emulation/counting'), '.cc'),
      'test/kernels/cuda/main.cc',
      ...files('test/kernels/cuda/accesses', '.cc'),
    ].map((file) => ({ file, flags: ['-O1'] })),
  ];
  expect(await runTests(sources, [])).toMatch(/\n0 of 3 failed\n$/);
});
