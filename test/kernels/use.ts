/** Makes the kernels that TROUPE_KERNELS names everyone's: the project `emulated` runs other folders' tests on them. */
import { native } from '../../src/engine/native.js';

const name = process.env.TROUPE_KERNELS;
if (name !== undefined) (native() as unknown as { useKernels(name: string): void }).useKernels(name);
