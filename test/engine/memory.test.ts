/**
 * The allocator: freed tensors' memory is reused, not mapped anew, and does not pile up. Left to glibc, 2,000 ×
 * "allocate 1 MiB and dispose" once grew the process to 2.1 GiB.
 */
import { expect, it } from 'vitest';
import { native } from '../../src/engine/native.js';

const addon = native();
const MiB = 1 << 20;
const memory = () => addon.deviceMemory('cpu');

it('a disposed tensor’s memory serves the next of its size', () => {
  addon.releaseMemory();
  const start = memory();
  const data = new Float32Array((4 * MiB) / 4).fill(3);
  const first = addon.tensor(data, [data.length], 'float32', 'cpu');
  expect(memory().used - start.used).toBe(4 * MiB);
  first.dispose();
  expect(memory()).toMatchObject({ used: start.used, cached: start.cached + 4 * MiB });
  const second = addon.tensor(data.fill(5), [data.length], 'float32', 'cpu');
  expect(memory().cached).toBe(start.cached);
  expect((addon.read(second) as Float32Array).every((value) => value === 5)).toBe(true);
  second.dispose();
  addon.releaseMemory();
  expect(memory().cached).toBe(0);
  expect(memory().peak).toBeGreaterThanOrEqual(4 * MiB);
});

it('memory kept for reuse stays below its limit, whatever the sizes', () => {
  const resident = process.memoryUsage().rss;
  for (let i = 0; i < 300; i++) {
    const size = 64 * 1024 + i * 40_000;
    addon.tensor(new Uint8Array(size), [size], 'uint8', 'cpu').dispose();
    expect(memory().cached).toBeLessThanOrEqual(1024 * MiB);
  }
  for (let i = 0; i < 2000; i++) addon.tensor(new Uint8Array(MiB), [MiB], 'uint8', 'cpu').dispose();
  expect(process.memoryUsage().rss - resident).toBeLessThan(1400 * MiB);
  addon.releaseMemory();
});
