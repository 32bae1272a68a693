/**
 * Recorded decode steps where the device's memory is short, which is handed out as a GPU's is
 * (native/kernels/cuda/emulation/device_memory.h): the tokens are those of a run with plenty of it, and it is counted.
 */
import { expect, it } from 'vitest';
import { type NativeRolloutEngine, native, type RolloutRequest } from '../../src/engine/native.js';
import type { NativePolicy } from '../../src/engine/native-model.js';
import { request, run, text, tinyConfig } from './tiny.js';
import { useDeviceMemory } from './use-workshop.js';

const addon = native();
const MiB = 2 ** 20;
/** Gate and up of a row take 32 KiB, what comes of them 16. */
const config = tinyConfig({ intermediateSize: 4096 });
const cacheBytes = 4 * MiB;

const { workshop, deviceMemory } = useDeviceMemory();

const engineWith = (recordSteps: boolean) => workshop.engine(config, { cacheBytes, recordSteps });
const idsOf = (engine: NativeRolloutEngine, requests: RolloutRequest[]) =>
  run(engine, requests).map(({ ids, finish }) => [finish, ids]);

/** With prompts of their own, or with one that they share. */
const samples = (policy: NativePolicy, count: number, shared = false) =>
  Array.from({ length: count }, (_, i) =>
    request(policy, text(shared ? 0 : i, 8), { maxTokens: 10, temperature: 1, counter: [0, i, 0, 0, 0] }),
  );

it('in the step that records: it is launched plainly, with all of its rows', () => {
  const policy = workshop.policy(config, 'float32');
  const plenty = idsOf(engineWith(false), samples(policy, 32, true));
  // A decode step of 32 rows, which takes 1.5 MiB for a layer at a time. Its recording uses none of it twice.
  deviceMemory(cacheBytes + 2.5 * MiB);
  const engine = workshop.engine(config, { cacheBytes });
  expect(idsOf(engine, samples(policy, 32, true))).toEqual(plenty);
  expect(engine.statistics()).toMatchObject({ memoryRestarts: 1, preemptions: 0, replayedSteps: 0 });
  // With the next cache it is tried again.
  engine.clearCache(true);
  deviceMemory(cacheBytes + 16 * MiB);
  expect(idsOf(engine, samples(policy, 32, true))).toEqual(plenty);
  expect(engine.statistics()).toMatchObject({ memoryRestarts: 1, preemptions: 0 });
  expect(engine.statistics().replayedSteps).toBeGreaterThan(4);
});

it('in a step that replays for one base, and has a long prompt of another', () => {
  const [first, second] = [3, 4].map((seed) => workshop.policy(config, 'float32', seed)) as [
    NativePolicy,
    NativePolicy,
  ];
  const long = () =>
    request(second, text(9, 300), { maxTokens: 10, temperature: 0, counter: [0, 9, 0, 0, 0] });
  const short = () => samples(first, 4).map((one) => ({ ...one, maxTokens: 30 }));
  const plenty = idsOf(engineWith(false), [...short(), long()]);
  deviceMemory(cacheBytes + 4 * MiB);
  const engine = engineWith(true);
  const [asked, later] = [short(), long()];
  const results = new Map<number, [string, ArrayLike<number>]>();
  const step = () => {
    for (const { id, finish, ids } of engine.step()) results.set(id, [finish, ids]);
    return engine.statistics();
  };
  for (const one of asked) engine.submit(one);
  for (let i = 0; i < 6; i++) step();
  const { replayedSteps, memoryRestarts } = engine.statistics();
  expect(replayedSteps).toBeGreaterThan(2);
  expect(memoryRestarts).toBe(0);
  engine.submit(later);
  // The first base's pass was replayed before the second's ran out, and is computed again.
  const after = step();
  expect(after.replayedSteps).toBeGreaterThan(replayedSteps);
  expect(after.memoryRestarts).toBeGreaterThan(0);
  while (!engine.idle) step();
  expect([...asked, later].map(({ id }) => results.get(id))).toEqual(plenty);
  expect(engine.statistics().replayedSteps).toBeGreaterThan(after.replayedSteps);
});

it.each([
  ['the slab does not fit', 3 * MiB],
  ['the step does not fit beside the slab', cacheBytes + MiB],
])('in the first step after the cache was made anew, where %s', (_where, left) => {
  const policy = workshop.policy(config, 'float32');
  // That begin differently: what they had in common were the first step's alone.
  const prompts = Array.from({ length: 4 }, (_, i) => Int32Array.of(i, ...text(i, 100)));
  const requests = () => samples(policy, 4).map((one, i) => ({ ...one, prompt: prompts[i] as Int32Array }));
  const plenty = idsOf(engineWith(false), requests());
  const device = cacheBytes + 40 * MiB;
  deviceMemory(device);
  const engine = engineWith(true);
  expect(idsOf(engine, requests())).toEqual(plenty);
  const before = engine.statistics();
  expect(before.memoryRestarts).toBe(0);
  expect(before.replayedSteps).toBeGreaterThan(4);
  engine.clearCache(true);
  // What training made and keeps.
  const bytes = device - left;
  workshop.keep(addon.tensor(new Uint8Array(bytes), [bytes], 'uint8', 'cpu'));
  for (const one of requests()) engine.submit(one);
  engine.step();
  expect(engine.statistics().memoryRestarts).toBeGreaterThan(0);
  while (!engine.idle) engine.step();
  expect(idsOf(engine, requests())).toEqual(plenty);
  expect(engine.statistics().replayedSteps).toBeGreaterThan(before.replayedSteps);
});
