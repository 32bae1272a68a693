/** What collectives of the group allow, measured. */
import type { ProcessGroup } from './process-group.js';
import { scope } from './scope.js';
import { noGrad, Tensor } from './tensor.js';

/** Bytes of whole tensors a second, as every rank sees them. */
export interface LinkRates {
  reduceScatter: number;
  allGather: number;
}

/** The shortest of so many counts: what disturbs one only makes it longer. */
const ROUNDS = 6;
/** fp32 numbers of the tensor that is sent, 64 MiB: its bytes take much longer than a collective's start. */
const NUMBERS = 2 ** 24;

/** All ranks measure together. */
export function measureLink(group: ProcessGroup): LinkRates {
  return noGrad(() =>
    scope(() => {
      const tensor = Tensor.zeros([group.size * Math.ceil(NUMBERS / group.size)]);
      // All ranks as often.
      const rate = (work: (name: string) => void) => {
        let shortest = Number.POSITIVE_INFINITY;
        for (let i = 0; i < ROUNDS; i++) {
          group.barrier('rate of the links');
          const started = performance.now();
          work('rate of the links');
          shortest = Math.min(shortest, (performance.now() - started) / 1000);
        }
        return (4 * NUMBERS) / shortest;
      };
      return {
        reduceScatter: rate((name) => group.reduceScatter(name, [tensor])),
        allGather: rate((name) => group.allGather(name, [tensor])),
      };
    }),
  );
}
