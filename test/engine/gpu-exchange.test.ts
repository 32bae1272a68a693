/** Guards against NCCL where a rank would wait for it for ever, and against the slow way without a word or a reason. */
import { expect, it } from 'vitest';
import { whyNotNccl } from '../../src/engine/gpu-exchange.js';
import { native } from '../../src/engine/native.js';
import { ProcessGroup } from '../../src/engine/process-group.js';
import { freePort } from '../../src/engine/rank-place.js';

const gpu = (index: number, problem = '') => ({ device: `cuda:${index}`, problem });
const cpu = { device: 'cpu', problem: 'there is no NVIDIA driver.' };

it('takes NCCL where every rank has it and computes on a GPU', () => {
  expect(whyNotNccl([gpu(0), gpu(1), gpu(0)])).toBe(undefined);
});

it('says why not', () => {
  expect(whyNotNccl([cpu, cpu])).toBe('');
  expect(whyNotNccl([gpu(0), cpu])).toBe('rank 1 computes on the CPU.');
  expect(whyNotNccl([gpu(0), gpu(1, 'TROUPE_NCCL is 0.')])).toBe('rank 1 has no NCCL: TROUPE_NCCL is 0.');
});

it('says why it cannot connect, and the group goes on', async () => {
  const port = await freePort();
  const place = { host: '127.0.0.1', port, serve: true, prefix: 'test', address: '127.0.0.1', interface: '' };
  using group = new ProcessGroup({ ...place, rank: 0, size: 1, timeoutSeconds: 20, nccl: false });
  // On a machine with a GPU and NCCL it can.
  expect(group.takeNccl('cuda:0')).toBe(native().ncclProblem());
  group.dropNccl();
  expect(group.sum('a sum', Float64Array.of(1, 2))).toEqual(Float64Array.of(1, 2));
});
