// test/kernels/use.ts for a program of build/js. Its threads have one choice in common.
import { isMainThread } from 'node:worker_threads';

if (isMainThread) {
  const { native } = await import('../../build/js/engine/native.js');
  native().useKernels(process.env.TROUPE_KERNELS);
}
