import { defineConfig } from 'vitest/config';

// Forks, not threads: a native crash ends one test file, not the run. One file at a time: libtorch takes all cores. The fast
// suite runs two: much of it waits for programs that it starts. Threads of libtorch that wait then must not hold a core.
const common = { pool: 'forks' as const, fileParallelism: false, testTimeout: 60_000, hookTimeout: 60_000 };

export default defineConfig({
  test: {
    globalSetup: ['test/summary.ts'],
    maxWorkers: 2,
    projects: [
      {
        test: {
          ...common,
          name: 'fast',
          fileParallelism: true,
          env: { OMP_WAIT_POLICY: 'PASSIVE' },
          include: ['test/**/*.test.ts'],
          exclude: ['test/**/*.slow.test.ts', 'test/**/*.gpu.test.ts', 'test/**/*.docs.test.ts'],
        },
      },
      {
        test: {
          ...common,
          name: 'docs',
          include: ['test/**/*.docs.test.ts'],
          testTimeout: 600_000,
          hookTimeout: 600_000,
        },
      },
      { test: { ...common, name: 'slow', include: ['test/**/*.slow.test.ts'], testTimeout: 1_800_000 } },
      // The CUDA backend as a whole on the CPU, its kernels over native/kernels/cuda/emulation.
      {
        test: {
          ...common,
          name: 'emulated',
          fileParallelism: true,
          include: ['test/{kernels,model,rollout,learning}/**/*.test.ts'],
          exclude: ['test/**/*.slow.test.ts'],
          setupFiles: ['test/kernels/use.ts'],
          env: { TROUPE_KERNELS: 'emulated', OMP_WAIT_POLICY: 'PASSIVE' },
          testTimeout: 1_800_000,
          hookTimeout: 1_800_000,
        },
      },
      // On a GPU only: npm run test:gpu.
      { test: { ...common, name: 'gpu', include: ['test/**/*.gpu.test.ts'], testTimeout: 120_000 } },
    ],
  },
});
