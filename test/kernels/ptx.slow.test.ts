/**
 * The CUDA kernels as nvcc compiles them, without a GPU: the tests of test/kernels/cuda once more, but for those of the emulation
 * itself, with every launch run by an interpreter of its PTX (test/kernels/cuda/ptx). It executes what the emulation has only
 * twins of, inline assembly and the intrinsics, and finds races between threads, missing fences and waits, and wrong alignment.
 */
import { join } from 'node:path';
import { beforeEach, expect, it } from 'vitest';
import { findNvcc } from '../../scripts/cuda.mjs';
import { needs } from '../needs.js';
import { compileToPtx, files, runTests, withScratch } from './programs.js';

const native = 'native/kernels/cuda';
const tests = 'test/kernels/cuda';
// The interpreter asks the sanitizer's memory by itself. No sum and product may become one operation.
const FAST = ['-O3', '-march=native', '-ffp-contract=off'];
const SANITIZED = ['-O1', '-g1', '-fsanitize=address'];
// Of random shapes, as cuda.slow.test.ts has twenty.
const ROUNDS = process.env.TROUPE_TEST_ROUNDS ?? '4';

beforeEach(needs('nvcc'));

it('compute what plain loops compute as nvcc compiles them, whatever the order of warps and blocks', async () => {
  const kernels = [...files(native, '.cu'), ...files(join(tests, 'ptx'), '.cu')];
  const sanitized = [
    ...kernels,
    join(native, 'paged_plan.cc'),
    join(native, 'emulation', 'emulation.cc'),
    ...files(tests, '.cc').filter((file) => !file.endsWith('emulation_test.cc')),
  ];
  const sources = [
    ...sanitized.map((file) => ({ file, flags: SANITIZED })),
    ...files(join(tests, 'ptx'), '.cc').map((file) => ({
      file,
      flags: file.endsWith('_test.cc') ? SANITIZED : FAST,
    })),
  ];
  await withScratch(async (folder) => {
    await compileToPtx(findNvcc() as string, kernels, folder);
    const environment = { TROUPE_TEST_PTX: folder, TROUPE_TEST_ROUNDS: ROUNDS };
    expect(await runTests(sources, SANITIZED, environment)).toMatch(/\n0 of 5\d failed\n$/);
  });
});
