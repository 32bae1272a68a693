/**
 * Updates that memory runs out in, or that a launch fails in. A step of the optimizer that throws has not happened: parameters, moments, their count and
 * the roles' averages are as before. What throws after it leaves a policy between two updates, which refuses to be saved.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, expect, it } from 'vitest';
import { native } from '../../src/engine/native.js';
import { AdamW } from '../../src/engine/optimizer.js';
import type { PolicyState } from '../../src/engine/policy-state.js';
import { scope } from '../../src/engine/scope.js';
import { Tensor } from '../../src/engine/tensor.js';
import { train } from '../../src/engine/training.js';
import { tinyConfig } from '../rollout/tiny.js';
import { useDeviceMemory } from '../rollout/use-workshop.js';
import { loss, policyState, trainCalls, trainRequest, turn } from './tiny-training.js';

const { workshop, deviceMemory, failLaunch } = useDeviceMemory();
// It widens what it measures, which takes memory in the middle of the optimizer's step.
beforeEach(() => (native() as unknown as { useKernels(name: string): void }).useKernels('reference'));

const MiB = 2 ** 20;
const folder = mkdtempSync(join(tmpdir(), 'troupe-broken-off-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function saved(policy: PolicyState): Buffer {
  const file = join(folder, 'state.safetensors');
  policy.save(file);
  return readFileSync(file);
}

/** Of roles that are damped: their averages are a part of the state. */
const roles = ['a', 'b'].map((role, k) => {
  return { role, groups: [k], slotFactor: 1, damping: 0.5, averageDecay: 0.9, rate: 1 };
});
const calls = trainCalls(4, (i) => 4 + i, 6);
const request = trainRequest(calls, { intervention: { roles, balance: 'none', order: [0, 1] } });
/** 595,000 parameters: 2.3 MiB in fp32. */
const config = tinyConfig({ hiddenSize: 128, heads: 4, headDim: 64, intermediateSize: 512 });

it('an optimizer that has no memory for the moments of its second group has not stepped the first', () =>
  scope(() => {
    const [small, large] = [Tensor.ones([2]), Tensor.ones([MiB / 4])];
    const groups = [small, large].map((parameter) => ({ parameters: [parameter], learningRate: 1 }));
    using optimizer = new AdamW(groups);
    const gradients = [Tensor.ones([2]), Tensor.ones([MiB / 4])];
    deviceMemory(1.5 * MiB);
    expect(() => optimizer.stepWith(gradients)).toThrow(/memory/);
    expect([small.toArray(), optimizer.stepCount]).toEqual([[1, 1], 0]);
    deviceMemory(0);
    optimizer.stepWith(gradients);
    expect(optimizer.state()['0.step']?.item()).toBe(1);
  }));

it('an update is made or not: wherever memory runs out in it, the state is the one before', async () => {
  const policy = policyState(workshop, { config });
  await train(policy, request, loss, turn);
  const before = saved(policy);
  const failed: string[] = [];
  for (let room = 1; failed.length === room - 1; room++) {
    expect(room).toBeLessThan(100);
    deviceMemory(room * MiB);
    const caught = (error: Error) => failed.push(error.message);
    await train(policy, request, loss, turn).catch(caught);
    deviceMemory(0);
    if (failed.length === room) expect(saved(policy).equals(before), failed.at(-1)).toBe(true);
  }
  expect(saved(policy).equals(before)).toBe(false);
  // Most of them in the optimizer's step, behind the backward pass, whose errors say what to set.
  expect(failed.filter((message) => !message.includes(' Set ')).length).toBeGreaterThan(5);
});

it('an update that a launch fails in is made or not, or refuses to be saved', async () => {
  (native() as unknown as { useKernels(name: string): void }).useKernels('emulated');
  const policy = policyState(workshop, { config: tinyConfig({}) });
  await train(policy, request, loss, turn);
  const before = saved(policy);
  const file = join(folder, 'launches');
  writeFileSync(file, before);
  const errors: string[] = [];
  let refused = 0;
  for (let launch = 1; errors.length === launch - 1; launch++) {
    failLaunch(launch);
    const { version } = policy.trained;
    await train(policy, request, loss, turn).catch((error: Error) => errors.push(error.message));
    failLaunch(0);
    if (errors.length < launch) break;
    if (policy.trained.version === version) {
      expect(saved(policy).equals(before), errors.at(-1)).toBe(true);
      continue;
    }
    refused++;
    expect(() => saved(policy)).toThrow('is between two updates: the last one broke off');
    policy.restore(file);
    expect(saved(policy).equals(before)).toBe(true);
  }
  expect(errors.length - refused).toBeGreaterThan(20);
  // The optimizer's step, and the sums of what it measured, which come after it.
  expect(errors.slice(-refused)).toEqual([
    expect.stringContaining('adamw_step could not be launched'),
    expect.stringContaining('sum_pieces could not be launched'),
  ]);
  expect(saved(policy).equals(before)).toBe(false);
});

it('a step without what belongs to it is not saved, until the policy is restored', async () => {
  const source = {
    make: () => {
      throw new Error('no memory for the average');
    },
    bytes: () => 0,
  };
  const policy = policyState(workshop, { source, reference: { kind: 'average', decay: 0.9 } });
  const before = saved(policy);
  await expect(train(policy, request, loss, turn)).rejects.toThrow('no memory for the average');
  expect(() => saved(policy)).toThrow('policy p is between two updates: the last one broke off');
  writeFileSync(join(folder, 'before'), before);
  policy.restore(join(folder, 'before'));
  expect(saved(policy).equals(before)).toBe(true);
});
