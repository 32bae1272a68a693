/** What work launches and how often it waits for a device, on the CUDA kernels' emulation: by their own counters, and ATen's dispatcher. */
import { afterAll } from 'vitest';
import { native } from '../../src/engine/native.js';

const addon = native() as unknown as {
  useKernels(name: string): void;
  kernels(name: string): { launches: number; waits: number; dispose(): void };
  countOperators(counting: boolean): Record<string, number>;
};

/** The file's tests run on the emulation. */
export function useEmulation(): void {
  addon.useKernels('emulated');
  afterAll(() => addon.useKernels(process.env.TROUPE_KERNELS ?? ''));
}

/** Operators that launch nothing: views, allocations, and those that call others, which are counted themselves. */
const SILENT =
  /^(autograd::|detach$)|^aten::(view|view_as|resolve_conj|_?reshape.*|_unsafe_view|as_strided|slice|select|narrow|t|transpose|permute|expand|expand_as|unsqueeze|squeeze|detach|alias|empty.*|to|contiguous|linear|matmul|unbind|split.*|chunk|diagonal|flatten|unflatten|result_type|item|is_.*|resize_.*|set_|numpy_T|zeros|ones|full|_to_copy|clone)$/;

/** Operators whose results' shapes or values the host must know: each waits inside ATen. */
const WAITING =
  /^aten::(_local_scalar_dense|nonzero|masked_select|equal|_?unique.*|allclose|isclose|bincount)$/;

export interface Counts {
  launches: number;
  waits: number;
}

export async function counts(work: () => unknown): Promise<Counts> {
  const kernels = addon.kernels('emulated');
  const before = { launches: kernels.launches, waits: kernels.waits };
  addon.countOperators(true);
  try {
    await work();
  } finally {
    const operators = Object.entries(addon.countOperators(false));
    const times = (wanted: (name: string) => boolean) =>
      operators.filter(([name]) => wanted(name)).reduce((sum, [, count]) => sum + count, 0);
    before.launches = kernels.launches - before.launches + times((name) => !SILENT.test(name));
    before.waits = kernels.waits - before.waits + times((name) => WAITING.test(name));
    kernels.dispose();
  }
  return before;
}
