// test/kernels/use.ts for a program of build/js.
import { native } from '../../build/js/engine/native.js';

native().useKernels(process.env.TROUPE_KERNELS);
