/** The limits of a sandbox: a schema for the configuration, with defaults. */
import { z } from 'zod';
import { seconds } from '../../config/seconds.js';

const MEBIBYTE = 2 ** 20;

export const limitsSchema = z.strictObject({
  seconds: seconds.default(3).describe('Wall-clock time of one test.'),
  totalSeconds: seconds
    .default(120)
    .describe('Wall-clock time of all tests of an answer at most; N tests get 4 N + 5 s of it.'),
  memoryMiB: z
    .int()
    .min(64)
    .default(1024)
    .describe("Address space of each process, and memory of all of an answer's processes together, in MiB."),
  processes: z
    .int()
    .min(3)
    .max(512)
    .default(32)
    .describe("Processes and threads, the sandbox's own two included."),
  outputMiB: z.number().positive().max(256).default(4).describe('Output of one test, in MiB.'),
  fileMiB: z.number().positive().default(16).describe('Size of one file, in MiB.'),
  temporaryMiB: z.int().min(1).default(64).describe('Size of all files in /tmp together, in MiB.'),
  files: z.int().min(16).default(5000).describe('Files and folders at once.'),
});

export type Limits = z.output<typeof limitsSchema>;

export const DEFAULT_LIMITS: Limits = limitsSchema.parse({});

/** What the program inside sets on itself: bytes and CPU seconds. */
export function ownLimits(limits: Limits): Record<'memory' | 'cpu' | 'processes' | 'file', number> {
  return {
    memory: limits.memoryMiB * MEBIBYTE,
    cpu: Math.ceil(limits.totalSeconds),
    processes: limits.processes,
    file: Math.ceil(Math.max(limits.fileMiB, limits.outputMiB + 1) * MEBIBYTE),
  };
}

/** Wall-clock milliseconds that `tests` tests get together: min(4 N + 5, totalSeconds) seconds. */
export function totalTime(limits: Limits, tests: number): number {
  return Math.min(4 * tests + 5, limits.totalSeconds) * 1000;
}
