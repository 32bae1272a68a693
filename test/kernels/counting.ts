/** What work launches, and how often it waits for a device and copies to it, on the CUDA kernels' emulation: by their own counters, and ATen's dispatcher. */
import { readFileSync } from 'node:fs';
import { afterAll } from 'vitest';
import { native } from '../../src/engine/native.js';

/** By operator; operations: floating-point operations of products. */
export type OperatorCounts = Record<string, { calls: number; bytes: number; operations: number }>;

const addon = native() as unknown as {
  useKernels(name: string): void;
  kernels(name: string): { launches: number; waits: number; uploads: number; dispose(): void };
  countOperators(counting: boolean): OperatorCounts;
};

/** The file's tests run on the emulation. */
export function useEmulation(): void {
  addon.useKernels('emulated');
  afterAll(() => addon.useKernels(process.env.TROUPE_KERNELS ?? ''));
}

/**
 * silent: operators that launch nothing (views, allocations, and those that call others, which are counted themselves);
 * waiting: those whose results' shapes or values the host must know, so that each waits inside ATen. Regular expressions,
 * which bench/stages.mjs reads too.
 */
const operators = JSON.parse(readFileSync(new URL('operators.json', import.meta.url), 'utf8')) as {
  silent: string;
  waiting: string;
};
const SILENT = new RegExp(operators.silent);
const WAITING = new RegExp(operators.waiting);

export interface Counts {
  launches: number;
  waits: number;
  /** Copies from the host's memory to the device's. */
  uploads: number;
}

export async function counts(work: () => unknown): Promise<Counts> {
  const kernels = addon.kernels('emulated');
  const before = { launches: kernels.launches, waits: kernels.waits, uploads: kernels.uploads };
  addon.countOperators(true);
  try {
    await work();
  } finally {
    const operators = Object.entries(addon.countOperators(false));
    const times = (wanted: (name: string) => boolean) =>
      operators.filter(([name]) => wanted(name)).reduce((sum, [, { calls }]) => sum + calls, 0);
    before.launches = kernels.launches - before.launches + times((name) => !SILENT.test(name));
    before.waits = kernels.waits - before.waits + times((name) => WAITING.test(name));
    before.uploads = kernels.uploads - before.uploads;
    kernels.dispose();
  }
  return before;
}
