/** A deterministic run is for the CPU; an engine that is asked for one on a GPU refuses, and `auto` is not silent about it. */
import { expect, it } from 'vitest';
import { deterministicNotice, refuseDeterministic } from '../../src/engine/deterministic.js';

it('is refused on a GPU, with the reason and what to set', () => {
  expect(() => refuseDeterministic('cuda:1')).toThrow(
    "deterministic runs are for the CPU, not for cuda:1: flash attention's backward pass repeats its bits only where it is asked " +
      'to, for 16 to 35 % of its time, and the rest has not been shown to repeat (docs/cuda.md). ' +
      'Set model.device: cpu, or leave deterministic out.',
  );
  expect(() => refuseDeterministic('cuda', 'run.yaml:3')).toThrow(/^run\.yaml:3: deterministic runs/);
  for (const device of ['cpu', 'auto']) refuseDeterministic(device);
});

it('says that auto is the CPU where there is a GPU, and nothing elsewhere', () => {
  expect(deterministicNotice('auto', ['cuda:0', 'cuda:1'])).toMatch(
    /^deterministic: model\.device: auto is the CPU and not cuda:0: flash attention's .*\.$/,
  );
  expect(deterministicNotice('auto', [])).toBeUndefined();
  expect(deterministicNotice('cpu', ['cuda:0'])).toBeUndefined();
});
