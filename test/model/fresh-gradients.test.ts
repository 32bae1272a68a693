/**
 * Accumulators that are not cleared: the first product of a group overwrites what its matrices hold. Whatever lay there, a
 * NaN above all, must not be seen, in any order in which groups come, and where none comes there must be zeros.
 */
import { describe, expect, it } from 'vitest';
import type { DType, NativeParameterSet, NativePolicy, PackCall } from '../../src/engine/native-model.js';
import { withKernels } from '../kernels/kernels.js';
import {
  addon,
  backward,
  call,
  checkTensorsAreFreed,
  type Floats,
  keep,
  randomBase,
  read,
  relativeError,
  sameBits,
  tinyConfig,
} from './support.js';

checkTensorsAreFreed();

/** Groups that the micro-batches' calls belong to; the third has none, the fourth the last. */
const MICRO_BATCHES = [[0, 1], [1], [0, 3]];
const GROUPS = 4;

const batchOf = (groups: readonly number[], seed: number) => {
  const calls = groups.map(
    (group, i): PackCall => ({
      prompt: Int32Array.of(3, 1, 4 + seed),
      response: Int32Array.of(10 + i, 20 + seed, 7 * i + 2),
      group,
    }),
  );
  return keep(addon.pack(calls, GROUPS, true));
};

function passes(policy: NativePolicy, microBatches: readonly (readonly number[])[]): void {
  for (const [seed, groups] of microBatches.entries()) {
    const weights = Array.from({ length: 3 * groups.length }, (_, i) => Math.sin(1 + i + seed));
    backward(policy, batchOf(groups, seed), weights);
  }
}

const gradients = (trained: NativeParameterSet) =>
  Array.from({ length: GROUPS }, (_, k) => read(keep(trained.gradient(k))).slice());

/** Every element of every accumulator is NaN, and then they begin again. */
function beginOverNaN(trained: NativeParameterSet): void {
  for (const gradient of trained.accumulators()) call('fill_', 'Scalar', keep(gradient), Number.NaN);
  trained.beginGradients(GROUPS);
}

const added = (parts: Floats[]) => {
  const [first, ...others] = parts as [Floats, ...Floats[]];
  return first.map((value, i) => others.reduce((sum, part) => sum + (part[i] ?? 0), value));
};

const adapter = { rank: 4, alpha: 8, targets: ['q', 'k', 'v', 'o', 'gate', 'up', 'down'] as const };

describe.each(['cpu', 'emulated', 'reference'])('%s', (kernels) => {
  it.each<[string, boolean, DType, boolean]>([
    ['tied embeddings', true, 'float32', false],
    ['a head of its own', false, 'bfloat16', false],
    ['an adapter', true, 'bfloat16', true],
  ])('%s', (_, tiedEmbeddings, dtype, adapts) =>
    withKernels(kernels, () => {
      const config = tinyConfig({ layers: 2, tiedEmbeddings, qkvBias: true });
      const base = randomBase(config, dtype, 3, !adapts);
      const options = { ...adapter, targets: [...adapter.targets] };
      const trained = adapts ? keep(addon.createAdapter(config, options, dtype, 'cpu')) : base;
      if (adapts) addon.initialize(trained, 2, 0.2);
      const policy = adapts
        ? keep(addon.createPolicy(config, base, trained, options))
        : keep(addon.createPolicy(config, base));

      trained.beginGradients(GROUPS);
      passes(policy, MICRO_BATCHES);
      const whole = gradients(trained);
      expect(whole[2]?.every((value) => value === 0)).toBe(true);
      expect([0, 1, 3].every((k) => whole[k]?.some((value) => value !== 0))).toBe(true);

      // Of each micro-batch alone, where every product is the first one.
      const alone = MICRO_BATCHES.map((groups, seed) => {
        beginOverNaN(trained);
        const weights = Array.from({ length: 3 * groups.length }, (_, i) => Math.sin(1 + i + seed));
        backward(policy, batchOf(groups, seed), weights);
        return gradients(trained);
      });
      for (let k = 0; k < GROUPS; k++) {
        const sum = added(alone.map((each) => each[k] as Floats));
        expect(relativeError(whole[k] as Floats, sum), `group ${k}`).toBeLessThan(1e-5);
      }

      // A pass that did not come to its end, and then all of it once more.
      beginOverNaN(trained);
      passes(policy, MICRO_BATCHES.slice(0, 1));
      trained.beginGradients(GROUPS);
      passes(policy, MICRO_BATCHES);
      const again = gradients(trained);
      for (let k = 0; k < GROUPS; k++) expect(sameBits(again[k] as Floats, whole[k] as Floats)).toBe(true);

      // What is asked for between two passes is what has been added until then.
      beginOverNaN(trained);
      passes(policy, MICRO_BATCHES.slice(0, 1));
      const name = trained.parameters[1]?.name ?? '';
      const seen = read(keep(trained.gradientView(3, name)));
      expect(seen.every((value) => value === 0)).toBe(true);
      backward(policy, batchOf([3], 7), [1, -1, 0.5]);
      const fourth = gradients(trained)[3] as Floats;
      beginOverNaN(trained);
      backward(policy, batchOf([3], 7), [1, -1, 0.5]);
      expect(relativeError(fourth, gradients(trained)[3] as Floats)).toBeLessThan(1e-6);
    }),
  );
});
