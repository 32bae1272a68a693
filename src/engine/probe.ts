/**
 * A program of its own that loads the addon and prints what it found, as JSON: `doctor` runs it as a child, so that
 * a library which crashes is a finding and not the end.
 */
import { readFileSync, realpathSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type CudaProblems, native } from './native.js';

export interface Probe {
  torchVersion: string;
  compiledTorchVersion: string;
  /** Path of the libtorch_cpu.so that was loaded; undefined where the system does not tell. */
  library: string | undefined;
  /** "cuda:0", … */
  cudaDevices: string[];
  cudaProblems: CudaProblems;
  threads: number;
  /** Whether the processor multiplies bfloat16 itself. */
  bf16: boolean;
}

const PROBE_FILE = fileURLToPath(import.meta.url);

function probe(): Probe {
  const addon = native();
  const maps = readFileSync('/proc/self/maps', 'utf8');
  return {
    torchVersion: addon.torchVersion,
    compiledTorchVersion: addon.compiledTorchVersion,
    library: /\S+libtorch_cpu\.so/.exec(maps)?.[0],
    cudaDevices: addon.cudaDevices(),
    cudaProblems: addon.cudaProblems(),
    threads: addon.threads(),
    bf16: addon.bf16Kernels(),
  };
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === PROBE_FILE) {
  try {
    console.log(JSON.stringify(probe()));
  } catch (error) {
    console.error((error as Error).message);
    process.exitCode = 1;
  }
}
