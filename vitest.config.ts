import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';
import LongestFirst from './test/longest-first.js';

// Tests name the sources and get what was built of them (test/built.ts): the program that users run, loaded by Node itself.
// Transforming every module took half the time of a test that trains.
const resolve = {
  alias: [
    {
      find: /^(?:\.\.\/)+src\/(.*\.js)$/,
      replacement: fileURLToPath(new URL('build/js/$1', import.meta.url)),
    },
  ],
};

// Forks, not threads: a native crash ends one test file, not the run. One file at a time: libtorch takes all cores. The fast
// suite runs two: much of it waits for programs that it starts. Threads of libtorch that wait then must not hold a core.
const project = (test: object) => ({
  resolve,
  test: {
    pool: 'forks' as const,
    fileParallelism: false,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    server: { deps: { external: [/\/build\/js\//] } },
    ...test,
  },
});

export default defineConfig({
  test: {
    globalSetup: ['test/built.ts', 'test/summary.ts'],
    maxWorkers: 2,
    // As long as a test may take: on a busy machine a worker of any file was still ending after the default of 10 s.
    teardownTimeout: 60_000,
    sequence: { sequencer: LongestFirst },
    projects: [
      project({
        name: 'fast',
        fileParallelism: true,
        env: { OMP_WAIT_POLICY: 'PASSIVE' },
        include: ['test/**/*.test.ts'],
        exclude: ['test/**/*.slow.test.ts', 'test/**/*.gpu.test.ts', 'test/**/*.docs.test.ts'],
      }),
      project({
        name: 'docs',
        include: ['test/**/*.docs.test.ts'],
        testTimeout: 600_000,
        hookTimeout: 600_000,
      }),
      project({ name: 'slow', include: ['test/**/*.slow.test.ts'], testTimeout: 1_800_000 }),
      // The CUDA backend as a whole on the CPU, its kernels over native/kernels/cuda/emulation.
      project({
        name: 'emulated',
        fileParallelism: true,
        include: ['test/{kernels,model,rollout,learning}/**/*.test.ts'],
        exclude: ['test/**/*.slow.test.ts'],
        setupFiles: ['test/kernels/use.ts'],
        env: { TROUPE_KERNELS: 'emulated', OMP_WAIT_POLICY: 'PASSIVE' },
        testTimeout: 1_800_000,
        hookTimeout: 1_800_000,
      }),
      // On a GPU only: npm run test:gpu. Beside what compares it with transformers, tests of all devices.
      project({
        name: 'gpu',
        include: [
          'test/gpu/*.gpu.test.ts',
          'test/rollout/{agreement,cache,random,sampling}.test.ts',
          'test/learning/backends.test.ts',
        ],
        // Much of their time is that of programs which start.
        fileParallelism: true,
        env: { TROUPE_TEST_DEVICE: process.env.TROUPE_TEST_DEVICE ?? 'cuda:0', OMP_WAIT_POLICY: 'PASSIVE' },
        testTimeout: 120_000,
      }),
    ],
  },
});
