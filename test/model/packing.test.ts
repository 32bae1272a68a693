/** Packing of calls into prefix trees, odd batches, and what a model refuses. */
import { describe, expect, it } from 'vitest';
import type { PackCall } from '../../src/engine/native-model.js';
import {
  addon,
  backward,
  call,
  checkTensorsAreFreed,
  keep,
  randomBase,
  read,
  sumOf,
  tinyConfig,
} from './support.js';

checkTensorsAreFreed();

const config = tinyConfig();
const packed = (prompt: number[], response: number[], group = 0): PackCall => ({
  prompt: Int32Array.from(prompt),
  response: Int32Array.from(response),
  group,
});

describe('rows', () => {
  it('are shared within a group, and the last token of a response needs none', () => {
    const calls = [packed([1, 2, 3], [4, 5]), packed([1, 2, 3], [4, 6]), packed([1, 2, 3], [7], 1)];
    const batch = keep(addon.pack(calls, 2, true));
    expect(batch.groupRows).toEqual([0, 4, 7]);
    expect(batch.entries).toBe(5);
    expect(batch.callStarts).toEqual([0, 2, 4, 5]);
    expect(batch.tokensSeen).toBe(14);
  });

  it('are not shared on request', () => {
    const calls = [packed([1, 2, 3], [4, 5]), packed([1, 2, 3], [4, 6])];
    expect(keep(addon.pack(calls, 1, false)).rows).toBe(8);
  });

  it('of identical calls and of a call that is a prefix of another cost nothing', () => {
    const calls = [packed([1, 2], [3, 4, 5]), packed([1, 2], [3, 4, 5]), packed([1, 2, 3], [4])];
    const batch = keep(addon.pack(calls, 1, true));
    expect(batch.rows).toBe(4);
    expect(batch.entries).toBe(7);
  });

  it('do not depend on the order of the calls', () => {
    const calls = [packed([1, 2], [3, 4]), packed([5], [6, 7]), packed([1, 2], [3, 9, 9])];
    expect(keep(addon.pack(calls, 1, true)).rows).toBe(keep(addon.pack([...calls].reverse(), 1, true)).rows);
  });
});

describe('odd batches', () => {
  const base = randomBase(config, 'float32');
  const policy = keep(addon.createPolicy(config, base));
  const logprobs = (calls: PackCall[], groups: number) => {
    const result = policy.tokenLogprobs(keep(addon.pack(calls, groups, true)), 1, false);
    keep(result.entropy);
    return read(keep(result.logprobs));
  };

  it('an empty response has no entries and changes nothing', () => {
    const calls = [packed([1, 2], [3, 4]), packed([1, 2], [])];
    expect(logprobs(calls, 1)).toEqual(logprobs(calls.slice(0, 1), 1));
  });

  it('a batch without any token gives empty results, and its backward adds nothing', () => {
    base.beginGradients(2);
    const batch = keep(addon.pack([packed([1], [])], 2, true));
    expect(backward(policy, batch, []).length).toBe(0);
    expect(read(keep(base.gradient(1))).every((value) => value === 0)).toBe(true);
  });

  it('an empty group has a zero gradient', () => {
    base.beginGradients(3);
    backward(policy, keep(addon.pack([packed([1, 2], [3], 0), packed([1, 2], [4], 2)], 3, true)), [1, 1]);
    expect(read(keep(base.gradient(1))).every((value) => value === 0)).toBe(true);
    expect(read(keep(base.gradient(2))).some((value) => value !== 0)).toBe(true);
  });

  it('a call of one prompt token works', () => {
    expect(logprobs([packed([1], [2])], 1)[0]).toBeLessThan(0);
  });
});

describe('refusals', () => {
  const base = randomBase(config, 'float32');
  const policy = keep(addon.createPolicy(config, base));
  const batch = keep(addon.pack([packed([1, 2], [3, 4])], 1, true));

  it('an empty prompt, a group that does not exist', () => {
    expect(() => addon.pack([packed([], [3])], 1, true)).toThrow('call 0 has an empty prompt');
    expect(() => addon.pack([packed([1], [3], 2)], 2, true)).toThrow(
      'call 0 is of group 2, but there are 2 groups',
    );
    expect(() => addon.pack([], 0, true)).toThrow('at least one gradient group');
  });

  it.each([101, -1])('token id %i', (id) => {
    for (const bad of [packed([1, id], [3]), packed([1], [id])]) {
      const outside = keep(addon.pack([bad], 1, true));
      expect(() => policy.tokenLogprobs(outside, 1, false)).toThrow(
        `token id ${id} lies outside the vocabulary`,
      );
    }
  });

  it.each([0, -1, Number.NaN])('temperature %d', (temperature) => {
    expect(() => policy.tokenLogprobs(batch, temperature, false)).toThrow('must be above 0');
  });

  it('gradients that were not begun, or for other groups', () => {
    base.endGradients();
    expect(() => policy.tokenLogprobs(batch, 1, true)).toThrow(
      '1 gradient groups, but gradients were begun for 0',
    );
    base.beginGradients(2);
    expect(() => policy.tokenLogprobs(batch, 1, true)).toThrow('begun for 2');
    expect(() => base.gradient(2)).toThrow('gradient group 2 of 2');
  });

  it('gradients of frozen parameters', () => {
    const frozen = keep(addon.createBase(config, 'bfloat16', 'cpu', false));
    expect(() => frozen.beginGradients(1)).toThrow('frozen');
    expect(() => frozen.master()).toThrow('frozen');
    const reference = keep(addon.createPolicy(config, frozen));
    expect(() => reference.tokenLogprobs(batch, 1, true)).toThrow('frozen');
  });

  it('a second backward, and weights that changed before the first', () => {
    base.beginGradients(1);
    const forward = () => {
      const result = policy.tokenLogprobs(batch, 1, true);
      keep(result.entropy);
      return call('sum', '', keep(result.logprobs));
    };
    const stale = forward();
    base.commit();
    expect(() => addon.backward(stale)).toThrow('changed between the forward and the backward pass');
  });

  it('an adapter for other layers, another dtype or rank', () => {
    const options = { rank: 2, alpha: 2, targets: ['q' as const] };
    const adapter = keep(addon.createAdapter(config, options, 'bfloat16', 'cpu'));
    expect(() => addon.createPolicy(config, base, adapter, options)).toThrow('one dtype');
    const other = keep(addon.createAdapter(config, options, 'float32', 'cpu'));
    expect(() => addon.createPolicy(config, base, other, { ...options, rank: 3 })).toThrow('rank');
    expect(() => addon.createAdapter(config, { ...options, targets: ['norm'] }, 'float32', 'cpu')).toThrow(
      'got norm',
    );
    expect(() => addon.createAdapter(config, { ...options, rank: 0 }, 'float32', 'cpu')).toThrow('rank');
    expect(() => addon.createPolicy(tinyConfig({ layers: 2 }), base)).toThrow('another configuration');
  });

  it('a shape that does not fit together', () => {
    const make = (changes: Parameters<typeof tinyConfig>[0]) => () =>
      addon.createBase(tinyConfig(changes), 'float32', 'cpu', true);
    expect(make({ heads: 5 })).toThrow('multiple of kvHeads');
    expect(make({ hiddenSize: 0 })).toThrow('at least 1');
    expect(make({ inverseFrequencies: new Float64Array(3) })).toThrow('inverseFrequencies');
  });

  it('disposed handles', () => {
    const disposed = addon.createBase(config, 'float32', 'cpu', true);
    disposed.dispose();
    expect(() => disposed.master()).toThrow('disposed');
    expect(() => addon.createPolicy(config, disposed)).toThrow('disposed');
  });

  it('but a policy outlives the handle of its base', () => {
    const parameters = addon.createBase(config, 'float32', 'cpu', true);
    addon.initialize(parameters, 1, 0.2);
    const survivor = keep(addon.createPolicy(config, parameters));
    parameters.dispose();
    const result = survivor.tokenLogprobs(batch, 1, false);
    keep(result.entropy);
    expect(read(keep(result.logprobs)).every(Number.isFinite)).toBe(true);
  });
});

describe('initialization', () => {
  const values = (dtype: 'float32' | 'bfloat16', seed: number) => {
    const base = keep(addon.createBase(tinyConfig({ qkvBias: true }), dtype, 'cpu', true));
    addon.initialize(base, seed, 0.02);
    return (name: string) => read(keep(base.view(name)));
  };

  it('is a function of the seed, Normal(0, std) for matrices, 1 for norms, 0 for biases', () => {
    const first = values('float32', 3);
    const embedding = first('model.embed_tokens.weight');
    expect(embedding).toEqual(values('bfloat16', 3)('model.embed_tokens.weight'));
    expect(embedding).not.toEqual(values('float32', 4)('model.embed_tokens.weight'));
    const mean = sumOf(embedding, (value) => value) / embedding.length;
    const variance = sumOf(embedding, (value) => value * value) / embedding.length;
    expect(Math.abs(mean)).toBeLessThan(0.002);
    expect(Math.sqrt(variance)).toBeGreaterThan(0.019);
    expect(Math.sqrt(variance)).toBeLessThan(0.021);
    expect(first('model.norm.weight').every((value) => value === 1)).toBe(true);
    expect(first('model.layers.0.self_attn.q_proj.bias').every((value) => value === 0)).toBe(true);
  });

  it('starts an adapter as the base', () => {
    const options = { rank: 4, alpha: 8, targets: ['q' as const, 'down' as const] };
    const base = randomBase(config, 'float32', 1, false);
    const adapter = keep(addon.createAdapter(config, options, 'float32', 'cpu'));
    addon.initialize(adapter, 1, 0.02);
    const batch = keep(addon.pack([packed([1, 2], [3, 4])], 1, true));
    const [plain, adapted] = [
      keep(addon.createPolicy(config, base)),
      keep(addon.createPolicy(config, base, adapter, options)),
    ].map((policy) => {
      const result = policy.tokenLogprobs(batch, 1, false);
      keep(result.entropy);
      return read(keep(result.logprobs));
    });
    expect(adapted).toEqual(plain);
    const bound = 1 / Math.sqrt(config.hiddenSize);
    const name = 'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight';
    const a = read(keep(adapter.view(name)));
    expect(a.every((value) => Math.abs(value) <= bound)).toBe(true);
    expect(Math.max(...a)).toBeGreaterThan(0.9 * bound);
  });
});
