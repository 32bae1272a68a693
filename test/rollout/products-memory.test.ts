/** Memory that a step has and measuring its products has not, on the CUDA kernels' emulation. */
import { afterEach, expect, it } from 'vitest';
import { measured, plantProducts } from '../kernels/products.js';
import { request, run, text, tinyConfig } from './tiny.js';
import { useDeviceMemory } from './use-workshop.js';

const MiB = 2 ** 20;
const CACHE = 4 * MiB;
const { workshop, deviceMemory } = useDeviceMemory();
afterEach(() => plantProducts());

it.each([false, true])(
  'a product whose measuring finds no memory stays the usual one, and the rollout loses nothing: measuring %s',
  (measureProducts) => {
    const config = tinyConfig({ intermediateSize: 8192 });
    const policy = workshop.policy(config, 'bfloat16');
    plantProducts({ kind: 'right', microseconds: 10 });
    deviceMemory(CACHE + 7 * MiB);
    const engine = workshop.engine(config, { cacheBytes: CACHE, measureProducts });
    const requests = Array.from({ length: 64 }, (_, i) =>
      request(policy, text(0, 8), { maxTokens: 10, temperature: 1, counter: [0, i, 0, 0, 0] }),
    );
    expect(run(engine, requests).map(({ finish }) => finish)).toEqual(new Array(64).fill('length'));
    expect(engine.statistics()).toMatchObject({ memoryRestarts: 0, preemptions: 0, replayedSteps: 8 });
    const of64 = measured('emulated').filter(({ rows }) => rows === 64);
    expect(of64.length).toBe(measureProducts ? 4 : 0);
    // Of gate and up, whose results are the largest, nothing was to be compared.
    const usual = measureProducts ? [{ outputs: 16384, offered: 1, usual: 0 }] : [];
    expect(of64.filter(({ chosen }) => chosen === -1)).toMatchObject(usual);
  },
);
