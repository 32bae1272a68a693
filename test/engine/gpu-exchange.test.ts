/** Guards against NCCL where a rank would wait for it for ever, and against the slow way without a word or a reason. */
import { expect, it } from 'vitest';
import { cardOf, exchangeOf } from '../../src/engine/gpu-exchange.js';

const gpu = (card: string) => ({ card, problem: '' });
const cpu = { card: undefined, problem: 'there is no NVIDIA driver.' };
const slow = "what the ranks' GPUs exchange goes by way of the CPUs' memory, which is slow: ";

it('takes NCCL where every rank has it and a GPU of its own', () => {
  expect(exchangeOf([gpu('a 0'), gpu('a 1'), gpu('b 0')])).toEqual({ nccl: true });
});

it('says why not', () => {
  const why = (...ranks: Parameters<typeof exchangeOf>[0]) => {
    const { nccl, notice } = exchangeOf(ranks);
    expect(nccl).toBe(false);
    return notice;
  };
  expect(why(cpu, cpu)).toBe(undefined);
  expect(why(gpu('a 0'), cpu)).toBe(`${slow}rank 1 computes on the CPU. (docs/distributed.md)`);
  expect(why(gpu('a 0'), gpu('a 1'), gpu('a 1'))).toBe(
    `${slow}ranks 1 and 2 compute on one GPU. (docs/distributed.md)`,
  );
  const off = { card: 'a 1', problem: 'TROUPE_NCCL is 0.' };
  expect(why(gpu('a 0'), off)).toBe(`${slow}rank 1 has no NCCL: TROUPE_NCCL is 0. (docs/distributed.md)`);
});

it('tells cards apart, of which a process may see only some', () => {
  const seen = (visible?: string) => ({ CUDA_VISIBLE_DEVICES: visible });
  expect(cardOf('cpu', seen())).toBe(undefined);
  expect(cardOf('cuda:1', seen())).toBe(cardOf('cuda:0', seen('1,0')));
  expect(cardOf('cuda:0', seen('0'))).not.toBe(cardOf('cuda:0', seen('1')));
  expect(cardOf('cuda:0', seen('2'))).toBe(cardOf('cuda:2', seen('0,1,2')));
  expect(cardOf('cuda', seen())).toBe(cardOf('cuda:0', seen('GPU-5, GPU-6'))?.replace('GPU-5', '0'));
});
