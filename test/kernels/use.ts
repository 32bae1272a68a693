/**
 * Makes the kernels that TROUPE_KERNELS names everyone's, in this process and in the programs that its tests start: the
 * project `emulated` runs other folders' tests on them.
 */
import { native } from '../../src/engine/native.js';

const name = process.env.TROUPE_KERNELS;
if (name !== undefined) {
  (native() as unknown as { useKernels(name: string): void }).useKernels(name);
  const program = new URL('./use-in-programs.mjs', import.meta.url).href;
  process.env.NODE_OPTIONS = `${process.env.NODE_OPTIONS ?? ''} --import=${program}`;
}
