/** What matrix products and copies of the CPU allow, measured in about two seconds. */
import { cpus, totalmem } from 'node:os';
import type { DType } from './native.js';
import type { ProcessGroup } from './process-group.js';
import { noGrad, scope, Tensor } from './tensor.js';

export interface MeasuredRates {
  name: string;
  memory: number;
  flops: { bfloat16: number; float32: number; float64: number };
  attention: number;
  bandwidth: number;
  launch: number;
  overhead: number;
}

const SECONDS = 0.4;
const LINK_ROUNDS = 6;

/** `dtype`: of the products that matter; the others' rates are given as the same. */
export function measureRates(dtype: DType): MeasuredRates {
  return noGrad(() =>
    scope(() => {
      const flops = productRate(dtype);
      const [model] = cpus();
      return {
        name: model?.model.trim() ?? 'this processor',
        memory: totalmem(),
        flops: { bfloat16: flops, float32: flops, float64: flops },
        attention: 0.5,
        bandwidth: copyRate(),
        launch: 0,
        overhead: 0,
      };
    }),
  );
}

/** Bytes a second that a rank sends to the next in a ring, as nccl-tests count them, from sums over the group. */
export function measureLink(group: ProcessGroup): number {
  return noGrad(() =>
    scope(() => {
      const tensor = Tensor.zeros([2 ** 24]);
      // All ranks as often.
      let shortest = Number.POSITIVE_INFINITY;
      for (let i = 0; i < LINK_ROUNDS; i++) {
        group.barrier('rate of the links');
        const started = performance.now();
        group.allReduce('rate of the links', [tensor]);
        shortest = Math.min(shortest, (performance.now() - started) / 1000);
      }
      return (((2 * (group.size - 1)) / group.size) * 4 * 2 ** 24) / shortest;
    }),
  );
}

/** The best of several spans: neighbours only ever slow a machine down. */
function best(work: () => void): number {
  work();
  let shortest = Number.POSITIVE_INFINITY;
  for (const end = performance.now() + 1000 * SECONDS; performance.now() < end; ) {
    const started = performance.now();
    scope(work);
    shortest = Math.min(shortest, (performance.now() - started) / 1000);
  }
  return shortest;
}

function productRate(dtype: DType): number {
  const [rows, inner, columns] = [1024, 1024, 2048];
  const a = Tensor.full([rows, inner], 0.5, { dtype });
  const b = Tensor.full([columns, inner], 0.25, { dtype }).transpose(0, 1);
  return (2 * rows * inner * columns) / best(() => a.matmul(b));
}

/** Bytes read and written a second. */
function copyRate(): number {
  const from = Tensor.zeros([2 ** 26]);
  const to = Tensor.zeros([2 ** 26]);
  return (2 * 4 * 2 ** 26) / best(() => to.copy_(from));
}
